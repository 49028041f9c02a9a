"""Kernels and networks away from where they were linearized: Taylor, velocity, after-kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.empirical.alignment import alignment
from ntk_lab.errors import InputError, NumericalError
from tests.tolerance import assert_close

taylor_expand = ntk.empirical.taylor_expand
velocity = ntk.empirical.kernel_velocity


def draw(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


PARAMS = {"a": draw(3, 4), "b": draw(4, 5), "c": draw(5, 2)}
X, X2 = draw(7, 3), draw(4, 3)
Y = draw(7, 2)
LIMITS = 6000, 9000, 20000  # bytes


def linear(p, x):
    """Of degree 3 in its parameters, homogeneous."""
    return x @ p["a"] @ p["b"] @ p["c"]


def smooth(p, x):
    return jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]


def moved(params, step, direction=None):
    direction = jax.tree.map(jnp.cos, params) if direction is None else direction
    return jax.tree.map(lambda p, d: p + step * d, params, direction)


# Taylor expansion


@pytest.mark.parametrize("order", [3, 4])
def test_a_polynomial_network_equals_its_expansion(order):
    far = moved(PARAMS, 1.7)
    assert_close(taylor_expand(linear, PARAMS, order)(far, X), linear(far, X))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_an_expansion_is_that_of_the_polynomial_along_every_line(order):
    steps = np.arange(4.0)
    values = np.stack([linear(moved(PARAMS, float(t)), X) for t in steps])
    powers = np.linalg.inv(np.vander(steps, increasing=True))
    coefficients = np.einsum("kt,tno->kno", powers, values)
    expected = sum(coefficients[k] * 0.5**k for k in range(order + 1))
    assert_close(taylor_expand(linear, PARAMS, order)(moved(PARAMS, 0.5), X), expected, factor=10)


@pytest.mark.x64
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_error_shrinks_with_the_next_power_of_the_step(order):
    expansion = taylor_expand(smooth, PARAMS, order)
    steps = 0.02 * 0.5 ** np.arange(3)
    errors = [float(jnp.linalg.norm(expansion(p, X) - smooth(p, X))) for p in
              (moved(PARAMS, t) for t in steps)]  # fmt: skip
    np.testing.assert_allclose(np.diff(np.log2(errors)), -(order + 1), atol=0.1)


def test_order_one_is_the_linearization_and_order_zero_the_network_itself():
    p = moved(PARAMS, 0.3)
    linearized = ntk.empirical.linearize(smooth, PARAMS)
    np.testing.assert_array_equal(taylor_expand(smooth, PARAMS, 1)(p, X), linearized(p, X))
    np.testing.assert_array_equal(taylor_expand(smooth, PARAMS, 0)(p, X), smooth(PARAMS, X))


def test_expansions_compile_and_train_and_hold_integers_constant():
    params = {**PARAMS, "n": jnp.int32(2)}

    def f(p, x):
        return smooth(p, x) * p["n"].astype(x.dtype)

    f2 = taylor_expand(f, params, 2)
    p = {**moved(PARAMS, 0.1), "n": jnp.int32(7)}
    assert_close(jax.jit(f2)(p, X), f2(p, X))
    floats = {name: p[name] for name in PARAMS}
    assert_close(f2(p, X), 2 * taylor_expand(smooth, PARAMS, 2)(floats, X))
    gradient = jax.grad(lambda a: f2({**p, "a": a}, X).sum())(p["a"])
    assert gradient.shape == (3, 4)


@pytest.mark.parametrize("order", [-1, 1.0, True, None])
def test_orders_that_are_none_are_refused(order):
    with pytest.raises(InputError, match="integer of at least 0"):
        taylor_expand(linear, PARAMS, order)


# Velocity


def descent(f, params, x=X, y=Y):
    def loss(p):
        return ((f(p, x) - y) ** 2).sum() / (2 * len(x))

    return jax.tree.map(jnp.negative, jax.grad(loss)(params))


@pytest.mark.parametrize("outputs", ["full", "diagonal", "trace"])
def test_kernels_of_homogeneous_networks_obey_eulers_identity(outputs):
    # Degree 3 in the parameters, so degree 4 for the kernel: its derivative along them is 4 of it.
    kernel = ntk.empirical.ntk(linear, PARAMS, X, X2, outputs=outputs)
    assert_close(velocity(linear, PARAMS, X, X2, direction=PARAMS, outputs=outputs), 4 * kernel)


def test_a_model_that_is_linear_in_its_parameters_has_a_constant_kernel():
    frozen = ntk.empirical.linearize(smooth, PARAMS)
    np.testing.assert_array_equal(velocity(frozen, PARAMS, X, y=Y), np.zeros((7, 7, 2, 2)))


@pytest.mark.x64
@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_the_velocity_is_the_limit_of_finite_differences(outputs):
    direction = descent(smooth, PARAMS)

    def kernel(t):
        return ntk.empirical.ntk(smooth, moved(PARAMS, t, direction), X, X2, outputs=outputs)

    def difference(h):
        return (kernel(h) - kernel(-h)) / (2 * h)

    extrapolated = (4 * difference(5e-4) - difference(1e-3)) / 3
    found = velocity(smooth, PARAMS, X, X2, y=Y, x=X, outputs=outputs)
    assert_close(found, extrapolated, factor=20)
    along = velocity(smooth, PARAMS, X, X2, direction=direction, outputs=outputs)
    assert_close(found, along)


@pytest.mark.x64
def test_the_velocity_is_how_the_kernel_moves_in_training():
    start = ntk.empirical.ntk(smooth, PARAMS, X, outputs="trace")

    def speed(rate, steps=1):
        params = PARAMS
        for _ in range(steps):
            params = moved(params, rate / steps, descent(smooth, params))
        return (ntk.empirical.ntk(smooth, params, X, outputs="trace") - start) / rate

    found = velocity(smooth, PARAMS, X, y=Y, outputs="trace")
    errors = [float(jnp.linalg.norm(speed(rate, 4) - found)) for rate in (4e-3, 2e-3, 1e-3)]
    np.testing.assert_allclose(np.diff(np.log2(errors)), -1, atol=0.03)
    assert_close(2 * speed(5e-6) - speed(1e-5), found, factor=1000)  # linear term gone


@pytest.mark.parametrize("outputs", ["full", "diagonal", "trace"])
def test_the_memory_limit_does_not_change_the_velocity(outputs):
    whole = velocity(smooth, PARAMS, X, y=Y, outputs=outputs)
    plans = [ntk.empirical.plan(smooth, PARAMS, X, outputs=outputs, memory=m / 3) for m in LIMITS]
    assert len({(plan.block, plan.cotangents) for plan in plans}) > 1
    for memory in LIMITS:
        assert_close(velocity(smooth, PARAMS, X, y=Y, outputs=outputs, memory=memory), whole)
    pair = velocity(smooth, PARAMS, X, X, y=Y, outputs=outputs, memory=LIMITS[0])
    assert_close(pair, whole)


def test_losses_selections_projections_and_tracing():
    def cross_entropy(logits, labels):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    labels = jnp.arange(7) % 2
    gradient = jax.grad(lambda p: cross_entropy(smooth(p, X), labels))(PARAMS)
    direction = jax.tree.map(jnp.negative, gradient)
    found = velocity(smooth, PARAMS, X2, y=labels, x=X, loss=cross_entropy)
    assert_close(found, velocity(smooth, PARAMS, X2, direction=direction))
    only = {**jax.tree.map(jnp.zeros_like, PARAMS), "b": descent(smooth, PARAMS)["b"]}
    select = {"a": False, "b": True, "c": False}
    part = velocity(smooth, PARAMS, X, y=Y, select=select)
    assert_close(part, velocity(smooth, PARAMS, X, direction=only, select=select))
    v = jnp.array([1.0, -2.0])
    full = velocity(smooth, PARAMS, X, y=Y)
    projected = velocity(smooth, PARAMS, X, y=Y, outputs=v)
    assert_close(projected, jnp.einsum("ijab,a,b->ij", full, v, v), factor=10)
    traced = jax.jit(lambda p: velocity(smooth, p, X, y=Y))(PARAMS)
    assert_close(traced, full)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": None}, "neither y and direction"),
        ({"direction": PARAMS}, "both y and direction"),
        ({"y": None, "direction": PARAMS, "x": X}, "belong to gradient flow"),
        ({"y": Y[:, :1]}, r"y has shape \(7, 1\)"),
        ({"y": None, "direction": {"a": PARAMS["a"]}}, "expected equal"),
        ({"y": None, "direction": {**PARAMS, "b": X}}, "at b, and the parameter"),
    ],
)
def test_bad_directions_are_explained(change, words):
    with pytest.raises(InputError, match=words):
        velocity(smooth, PARAMS, X, **{"y": Y, **change})


def test_a_velocity_that_is_not_finite_is_refused():
    with pytest.raises(NumericalError, match="not finite"):
        velocity(smooth, PARAMS, X, y=Y * jnp.nan)


# After-kernels


def run(steps=3):
    params = PARAMS
    for step in range(steps):
        yield 10 * step, params
        params = moved(params, 0.1, descent(smooth, params))


@pytest.mark.parametrize("outputs", ["trace", "diagonal", "full"])
def test_after_kernels_are_the_kernels_of_the_checkpoints(outputs):
    found = ntk.empirical.after_kernels(smooth, dict(run()), X, targets=Y, outputs=outputs)
    kernels = [ntk.empirical.ntk(smooth, p, X, outputs=outputs) for _, p in run()]
    np.testing.assert_array_equal(found.kernels, np.stack(kernels))
    assert found.steps == (0, 10, 20)
    wide = np.asarray(found.kernels, np.float64)
    distances = [np.linalg.norm(k - wide[0]) / np.linalg.norm(wide[0]) for k in wide]
    np.testing.assert_allclose(found.drift, distances, rtol=1e-14)
    trace = ntk.empirical.ntk(smooth, dict(run())[20], X, outputs="trace")
    last = alignment(np.asarray(trace), np.asarray(Y @ Y.T))
    assert_close(jnp.asarray(found.alignment[2], float), last)


def test_checkpoints_are_taken_one_at_a_time():
    seen = []

    def loaded():
        for step, params in run():
            seen.append(step)
            yield params

    progress = []
    found = ntk.empirical.after_kernels(
        smooth, loaded(), X, X2, keep=False, progress=lambda *a: progress.append((*a, len(seen)))
    )
    assert progress == [(1, 0, 1), (2, 0, 2), (3, 0, 3)]
    assert found.kernels is None
    assert found.alignment is None
    assert found.steps == (0, 1, 2)
    assert found.drift[0] == 0
    assert str(found).splitlines()[0].split() == ["step", "drift"]


def test_a_kernel_that_equals_the_targets_is_aligned_and_scaling_drifts():
    x = jnp.array([[1.0], [2.0], [-4.0]])
    run = [jnp.asarray(1.0), jnp.asarray(3.0)]
    found = ntk.empirical.after_kernels(lambda w, x: w**2 * x, run, x, targets=x)
    assert_close(jnp.asarray(found.alignment, float), np.ones(2))
    assert_close(jnp.asarray(found.drift, float), np.array([0, 8.0]))
    still = ntk.empirical.after_kernels(lambda w, x: w * x, run, x)
    np.testing.assert_array_equal(still.drift, [0, 0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checkpoints": []}, "checkpoints is empty"),
        ({"checkpoints": [PARAMS, {**PARAMS, "c": draw(5, 3)}]}, "expected checkpoints of one"),
        ({"targets": Y[:3]}, "a row an example"),
        ({"targets": Y, "x2": X2}, "x2=None"),
    ],
)
def test_bad_checkpoints_are_explained(change, words):
    arguments = {"f": smooth, "checkpoints": [PARAMS], "x1": X} | change
    with pytest.raises(InputError, match=words):
        ntk.empirical.after_kernels(**arguments)
