"""Matrix-free kernels against the kernels themselves: products, solves, eigenpairs, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.empirical import products
from ntk_lab.errors import ConvergenceError, InputError, NumericalError
from tests.empirical.oddities import CASES
from tests.tolerance import assert_close

EXAMPLES = [
    "sequence_to_last_position",
    "embedding_tied_to_the_readout",
    "conv_strided_and_dilated",
]
X64 = jax.config.jax_enable_x64


def exact(found, expected):
    """To 1e-12 of the largest entry in float64, and to rounding in float32."""
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=scale * (1e-12 if X64 else 2e-5))


def matrix(kernel):
    """A full kernel as a matrix over examples and outputs."""
    n1, n2, k1, k2 = kernel.shape
    return np.asarray(kernel).transpose(0, 2, 1, 3).reshape(n1 * k1, n2 * k2)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request):
    f, params, x = CASES[request.param]()
    return f, params, x, matrix(ntk.empirical.ntk(f, params, x))


@pytest.fixture(scope="module")
def network():
    """Outputs with two axes; a smooth kernel of size 48 and its trace of size 8."""
    params = {"w": normal(0, 5, 7), "v": normal(1, 7, 2, 3), "b": normal(2, 7)}

    def f(p, x):
        return jnp.einsum("nh,hab->nab", jnp.tanh(x @ p["w"] + p["b"][None]), p["v"]) / 3

    x = normal(3, 8, 5)
    full = matrix(ntk.empirical.ntk(f, params, x))
    return f, params, x, full, np.asarray(ntk.empirical.ntk(f, params, x, outputs="trace"))


def test_products_are_those_of_the_matrix(example):
    f, params, x, full = example
    k = ntk.empirical.operator(f, params, x)
    assert k.shape == full.shape
    assert k.dtype == full.dtype
    v = normal(4, k.shape[1], 3)
    exact(k @ v, full @ np.asarray(v))
    shaped = (k @ v.reshape(*k.vector_shape, 3)).reshape(-1, 3)
    np.testing.assert_array_equal(shaped, k @ v)
    exact((k @ v[:, 0].reshape(k.vector_shape)).reshape(-1), full @ np.asarray(v[:, 0]))


def test_traces_and_projections_of_outputs(network):
    f, params, x, full, trace = network
    v = normal(4, 8, 3)
    exact(ntk.empirical.operator(f, params, x, outputs="trace") @ v, trace @ np.asarray(v))
    projection = normal(5, 6, 2)
    kernel = matrix(ntk.empirical.ntk(f, params, x, outputs=projection))
    k = ntk.empirical.operator(f, params, x, outputs=projection)
    assert k.vector_shape == (8, 2)
    exact(k @ normal(6, 16), kernel @ np.asarray(normal(6, 16)))
    one = ntk.empirical.operator(f, params, x, outputs=projection[:, 0])
    assert one.vector_shape == (8,)
    exact(one @ v, np.asarray(kernel).reshape(8, 2, 8, 2)[:, 0, :, 0] @ np.asarray(v))
    exact(one.diagonal(), np.diag(kernel)[::2])
    assert full.shape == (48, 48)


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_two_batches_and_the_transpose(network, outputs):
    f, params, x, *_ = network
    k = ntk.empirical.operator(f, params, x[:3], x[2:], outputs=outputs)
    kernel = ntk.empirical.ntk(f, params, x[:3], x[2:], outputs=outputs)
    kernel = matrix(kernel) if outputs == "full" else np.asarray(kernel)
    v, w = normal(4, k.shape[1], 2), normal(5, k.shape[0])
    exact(k @ v, kernel @ np.asarray(v))
    exact(k.T @ w, kernel.T @ np.asarray(w))
    assert k.T.T.shape == k.shape
    transpose = jax.linear_transpose(lambda v: k @ v, v[:, 0])
    exact(transpose(w)[0], kernel.T @ np.asarray(w))


@pytest.mark.parametrize("batch", [1, 3])
def test_every_batch_and_limit_gives_the_same_product(network, batch):
    f, params, x, full, trace = network
    v = normal(4, 48, 5)
    exact(ntk.empirical.operator(f, params, x, batch=batch) @ v, full @ np.asarray(v))
    k = ntk.empirical.operator(f, params, x, outputs="trace", batch=batch)
    exact(k @ v[:8], trace @ np.asarray(v[:8]))
    exact(k.diagonal(), np.diag(trace))


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_the_memory_limit_changes_tiles_but_not_the_product(network, outputs):
    f, params, x, full, trace = network
    expected = full if outputs == "full" else trace
    v, seen = normal(4, len(expected), 5), set()
    whole = ntk.empirical.operator(f, params, x, outputs=outputs)
    for share in (0.7, 0.2):
        memory = share * products.estimate(whole.net, 5, 8)
        k = ntk.empirical.operator(f, params, x, outputs=outputs, memory=memory)
        exact(k @ v, expected @ np.asarray(v))
        exact(k.diagonal().reshape(-1), np.diag(expected))
        seen.add((products.tile(k.net, 5, 8), len(products.chunks(k.net, 5, 8))))
    assert len(seen) == 2
    with pytest.raises(InputError, match="Allow at least"):
        ntk.empirical.operator(f, params, x, memory=100)


def test_many_tiles_are_a_loop_under_jit(network):
    f, params, x, *_ = network
    x = jnp.concatenate([x] * 5)[:37]
    k = ntk.empirical.operator(f, params, x, batch=2)
    v = normal(4, 37 * 6)
    plain = k @ v
    exact(jax.jit(lambda v: k @ v)(v), plain)
    text = str(jax.make_jaxpr(lambda v: k @ v)(v))
    assert text.count("scan") == 2


def test_products_under_jit_grad_and_vmap(network):
    f, params, x, full, _ = network
    k = ntk.empirical.operator(f, params, x)
    v = normal(4, 48)
    exact(jax.jit(lambda k, v: k @ v)(k, v), full @ np.asarray(v))
    exact(jax.vmap(lambda v: k @ v)(normal(5, 2, 48)), np.asarray(normal(5, 2, 48)) @ full)
    gradient = jax.grad(lambda v: v @ (k @ v) / 2)(v)
    exact(gradient, full @ np.asarray(v))

    def energy(params):
        return v @ (ntk.empirical.operator(f, params, x) @ v)

    def dense(params):
        kernel = ntk.empirical.ntk(f, params, x)
        return v @ kernel.transpose(0, 2, 1, 3).reshape(48, 48) @ v

    found, expected = jax.jit(jax.grad(energy))(params), jax.grad(dense)(params)
    for name in params:
        assert_close(found[name], expected[name], factor=20)


def test_some_parameters_only(network):
    f, params, x, *_ = network
    for select in (lambda path: path == "w", {"w": True, "v": False, "b": False}):
        k = ntk.empirical.operator(f, params, x, select=select)
        kernel = matrix(ntk.empirical.ntk(f, params, x, select=select))
        exact(k @ normal(4, 48), kernel @ np.asarray(normal(4, 48)))
        exact(k.diagonal().reshape(-1), np.diag(kernel))


def test_every_use_of_a_parameter_has_the_exact_diagonal(example):
    f, params, x, full = example
    k = ntk.empirical.operator(f, params, x)
    exact(k.diagonal().reshape(-1), np.diag(full))
    exact(k.trace().value, np.trace(full))
    assert k.trace().standard_error == 0


def test_parameters_that_do_not_matter_give_zeros():
    f, params, x = CASES["parameters_that_do_not_matter"]()
    k = ntk.empirical.operator(f, params, x, select=lambda path: path == "u")
    v = jnp.ones(k.shape[0])
    np.testing.assert_array_equal(k @ v, 0)
    np.testing.assert_array_equal(k.diagonal(), 0)


def test_without_examples_products_are_empty(network):
    f, params, x, *_ = network
    k = ntk.empirical.operator(f, params, x[:0], x)
    assert (k @ jnp.ones((8, 2, 3))).shape == (0, 2, 3)
    np.testing.assert_array_equal(k.T @ jnp.ones((0, 2, 3)), jnp.zeros((8, 2, 3)))
    with pytest.raises(InputError, match="needs examples"):
        ntk.empirical.operator(f, params, x[:0]).solve(jnp.ones((0, 2, 3)), 1.0)


@pytest.mark.x64
def test_float32_is_right_through_layer_norm():
    """One release of JAX miscompiles this network's batched Jacobians in float32."""

    def f(p, x):
        h = ntk.nn.LayerNorm().apply((), x @ p["w"])
        return h[:, -1] @ p["v"]

    params = {"w": normal(0, 128, 128) / 11.0, "v": normal(1, 128, 10) / 11.0}
    x, v = normal(2, 8, 32, 128), normal(3, 8, 10, 3)
    single = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float32), tree)  # noqa: E731
    expected = ntk.empirical.operator(f, params, x)
    found = ntk.empirical.operator(f, single(params), single(x))
    assert_close(found @ single(v), expected @ v)
    assert_close(found.diagonal(), expected.diagonal())


# Solves


def options(k):
    yield {}
    yield {"preconditioner": "diagonal"}
    yield {"preconditioner": "nystrom", "rank": 30, "key": jax.random.key(1)}
    yield {"preconditioner": k.nystrom(30)}


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_solutions_are_those_of_the_dense_system(network, outputs):
    f, params, x, full, trace = network
    kernel = (full if outputs == "full" else trace).astype(np.float64)
    k = ntk.empirical.operator(f, params, x, outputs=outputs)
    ridge, y = 0.1 * kernel[0, 0], normal(7, len(kernel), 3)
    expected = np.linalg.solve(kernel + ridge * np.eye(len(kernel)), np.asarray(y, np.float64))
    scale = np.linalg.norm(expected)
    for chosen in options(k) if outputs == "full" else [{}]:
        found = k.solve(y, ridge, **chosen)
        tol = 1e-10 if X64 else 1e-5
        assert (found.relative_residual <= tol).all()
        residual = np.asarray(y) - (kernel + ridge * np.eye(len(kernel))) @ np.asarray(found.value)
        relative = np.linalg.norm(residual, axis=0) / np.linalg.norm(np.asarray(y), axis=0)
        np.testing.assert_allclose(found.relative_residual, relative, atol=tol / 3)
        error = np.linalg.norm(np.asarray(found.value) - expected)
        assert error < tol * scale * np.linalg.cond(kernel + ridge * np.eye(len(kernel)))


def test_solutions_have_the_shape_of_the_right_side(network):
    f, params, x, *_ = network
    k = ntk.empirical.operator(f, params, x)
    one = k.solve(normal(7, 8, 2, 3), 1.0)
    assert one.value.shape == (8, 2, 3)
    assert one.relative_residual.shape == ()
    assert one.relative_residual.shape == k.solve(normal(7, 48), 1.0).relative_residual.shape
    zero = k.solve(jnp.zeros((48, 2)).at[0, 0].set(1), 1.0)
    np.testing.assert_array_equal(zero.value[:, 1], 0)
    assert zero.relative_residual[1] == 0


def hard():
    """A linear network whose kernel falls by powers, in an orthonormal basis."""
    basis, _ = jnp.linalg.qr(normal(8, 60, 60))
    x = basis * jnp.exp(-jnp.arange(60.0) / 5)[None]
    return ntk.empirical.operator(lambda w, x: x @ w, jnp.ones(60), x)


def test_the_nystrom_preconditioner_saves_iterations():
    k, y = hard(), normal(9, 60)
    # In float32 a residual below the default tol is out of reach of rounding at a ridge of 1e-3.
    ridge = 1e-3 if X64 else 1e-2
    plain = k.solve(y, ridge)
    better = k.solve(y, ridge, preconditioner="nystrom", rank=30)
    assert better.iterations < plain.iterations / 2
    assert_close(better.value, plain.value, factor=1e3)


def test_a_solve_that_falls_short_says_so_and_keeps_what_it_has():
    k, y = hard(), normal(9, 60)
    with pytest.raises(ConvergenceError, match="iterations are used up") as caught:
        k.solve(y.reshape(60, 1), 1e-3, max_iterations=5)
    assert isinstance(caught.value, NumericalError)
    partial = caught.value.result
    residual = y[:, None] - (k @ partial.value + 1e-3 * partial.value)
    relative = jnp.linalg.norm(residual) / jnp.linalg.norm(y)
    assert_close(partial.relative_residual, relative[None])
    with pytest.raises(ConvergenceError, match=r"rounding forbids more|not positive definite"):
        k.solve(y, 1e-5 if X64 else 1e-3, tol=1e-15 if X64 else 1e-7)


# Eigenpairs


def check_pairs(found, kernel, top):
    kernel = kernel.astype(np.float64)
    values = np.linalg.eigvalsh(kernel)[::-1][:top]
    tol = values[0] * (1e-10 if X64 else 1e-5)
    np.testing.assert_allclose(found.eigenvalues, values, atol=tol)
    vectors = np.asarray(found.eigenvectors, np.float64).reshape(len(kernel), top)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(top), atol=1e-12 if X64 else 1e-5)
    residuals = np.linalg.norm(kernel @ vectors - vectors * np.asarray(found.eigenvalues), axis=0)
    np.testing.assert_allclose(found.residual_norms, residuals, atol=tol / 3)
    assert found.residual_norms.max() <= tol


def test_eigenpairs_of_small_kernels(network):
    f, params, x, full, trace = network
    found = ntk.empirical.operator(f, params, x).eigsh(5)
    assert found.eigenvectors.shape == (8, 2, 3, 5)
    check_pairs(found, full, 5)
    check_pairs(ntk.empirical.operator(f, params, x, outputs="trace").eigsh(8), trace, 8)


@pytest.mark.parametrize(("top", "block"), [(3, 2), (10, 4)])
def test_eigenpairs_by_iteration(top, block):
    f = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"]  # noqa: E731
    params, x = {"w": normal(0, 6, 40) / 2, "v": normal(1, 40)}, normal(2, 200, 6)
    k = ntk.empirical.operator(f, params, x)
    found = k.eigsh(top, block=block)
    assert found.products < 200
    check_pairs(found, np.asarray(ntk.empirical.ntk(f, params, x))[:, :, 0, 0], top)


def test_repeated_eigenvalues_are_found_as_often_as_they_occur():
    """Linear networks have every eigenvalue once an output."""
    x = normal(2, 50, 30) * jnp.exp(-jnp.arange(30.0) / 5)[None]
    k = ntk.empirical.operator(lambda w, x: x @ w, normal(0, 30, 4), x)
    gram = np.asarray(x, np.float64) @ np.asarray(x, np.float64).T
    check_pairs(k.eigsh(9), np.kron(gram, np.eye(4)), 9)


def test_kernels_of_low_rank_have_zeros_after_it():
    x = normal(2, 150, 3)
    k = ntk.empirical.operator(lambda w, x: x @ w, normal(0, 3), x)
    check_pairs(k.eigsh(5, block=2), np.asarray(x) @ np.asarray(x).T, 5)


def test_eigenpairs_that_fall_short_say_so():
    k = hard()
    with pytest.raises(ConvergenceError, match="max_products") as caught:
        k.eigsh(4, block=2, max_products=6)
    assert caught.value.result.eigenvectors.shape == (60, 4)
    assert caught.value.result.products == 6


# Refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outputs": "diagonal"}, "choose 'full' or 'trace'"),
        ({"outputs": np.ones((5, 2))}, r"expected \(6, k\)"),
        ({"batch": 0}, "batch=0"),
        ({"x2": jnp.zeros((2, 4))}, "must be equal"),
        ({"f": lambda p, x: x - x.mean(axis=0)[None]}, "mixes the examples"),
        ({"f": lambda p, x: x.sum()}, "one row an example"),
    ],
)
def test_bad_arguments_are_explained(network, change, words):
    f, params, x, *_ = network
    arguments = {"f": f, "params": params, "x1": x, "x2": None} | change
    with pytest.raises(InputError, match=words):
        ntk.empirical.operator(**arguments)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda k: k @ jnp.ones(7), r"expected \(8, 2, 3\) or \(48,\)"),
        (lambda k: k @ jnp.full(48, jnp.nan), "vector holds NaN"),
        (lambda k: k.solve(jnp.ones(48), -1.0), "ridge=-1.0"),
        (lambda k: k.solve(jnp.ones(48), 1.0, tol=0), "tol=0"),
        (lambda k: k.solve(jnp.ones(48), 1.0, max_iterations=0), "max_iterations=0"),
        (lambda k: k.solve(jnp.ones(48), 1.0, preconditioner="ilu"), "preconditioner='ilu'"),
        (lambda k: k.solve(jnp.full(48, jnp.nan), 1.0), "right side holds NaN"),
        (
            lambda k: jax.jit(lambda y: k.solve(y, 1.0))(jnp.ones(48)),
            "values are not known|Call it",
        ),
        (lambda k: k.eigsh(0), "top=0"),
        (lambda k: k.eigsh(49), "from 1 to 48"),
        (lambda k: k.eigsh(2, block=0), "block=0"),
        (lambda k: k.nystrom(99), "rank=99"),
        (lambda k: k.trace(samples=4), "need a key"),
        (lambda k: k.trace(jax.random.key(0), 1), "samples=1"),
        (lambda k: k.logdet(0.0, jax.random.key(0)), "ridge=0"),
        (lambda k: k.logdet(1.0, jax.random.key(0), depth=49), "depth=49"),
        (lambda k: k.spectral_density(jnp.ones(3), jax.random.key(0)), "ascending"),
        (lambda k: k.spectral_density(jnp.ones(1), jax.random.key(0)), "at least two"),
        (lambda k: k.spectral_density(jnp.arange(3.0), jax.random.key(0), log=True), "positive"),
    ],
)
def test_bad_calls_are_explained(network, call, words):
    f, params, x, *_ = network
    with pytest.raises((InputError, NumericalError), match=words):
        call(ntk.empirical.operator(f, params, x))


def test_two_batches_have_no_spectrum(network):
    f, params, x, *_ = network
    k = ntk.empirical.operator(f, params, x, x)
    for call in (k.diagonal, k.trace, lambda: k.eigsh(1), lambda: k.solve(jnp.ones(48), 1.0)):
        with pytest.raises(InputError, match="without x2"):
            call()


def test_values_that_are_not_finite_are_traced_to_their_cause(network):
    f, params, x, *_ = network
    broken = params | {"v": params["v"].at[0, 0, 0].set(jnp.nan)}
    with pytest.raises(NumericalError, match="the parameters v hold NaN"):
        ntk.empirical.operator(f, broken, x) @ jnp.ones(48)
    with pytest.raises(NumericalError, match="inputs hold NaN"):
        ntk.empirical.operator(f, params, x.at[2, 0].set(jnp.nan)).diagonal()
