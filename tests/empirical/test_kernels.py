"""Choices of the caller: methods, outputs, memory, parameters, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError
from tests.empirical.oddities import CASES
from tests.tolerance import assert_close

EXAMPLES = [
    "sequence_to_last_position",
    "embedding_tied_to_the_readout",
    "conv_strided_and_dilated",
]


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request):
    f, params, x = CASES[request.param]()
    return f, params, x, ntk.empirical.ntk(f, params, x, x, method="jacobian")


def _recorder(calls):
    return lambda done, total: calls.append((done, total))


def expected(kernel, outputs):
    if outputs == "full":
        return kernel
    diagonal = jnp.einsum("ijaa->ija", kernel)
    return diagonal if outputs == "diagonal" else diagonal.mean(2)


@pytest.mark.parametrize("outputs", ["full", "diagonal", "trace"])
@pytest.mark.parametrize("method", ["auto", "jacobian", "vector-products", "structured"])
def test_all_methods_agree(example, method, outputs):
    f, params, x, kernel = example
    found = ntk.empirical.ntk(f, params, x, method=method, outputs=outputs)
    assert_close(found, expected(kernel, outputs), factor=10)


@pytest.mark.parametrize("outputs", ["full", "diagonal", "trace"])
def test_the_memory_limit_changes_tiles_but_not_the_kernel(example, outputs):
    f, params, x, kernel = example
    whole = ntk.empirical.plan(f, params, x, outputs=outputs)
    seen = set()
    for share in (0.8, 0.6, 0.3, 0.1):
        memory = share * whole.bytes
        try:
            plan = ntk.empirical.plan(f, params, x, outputs=outputs, memory=memory)
        except InputError:
            continue
        assert plan.bytes <= memory
        progress = []
        found = ntk.empirical.ntk(
            f, params, x, outputs=outputs, memory=memory, progress=_recorder(progress)
        )
        assert progress == [(i + 1, plan.tiles) for i in range(plan.tiles)]
        assert_close(found, expected(kernel, outputs), factor=10)
        pair = ntk.empirical.ntk(f, params, x, x, outputs=outputs, memory=memory)
        assert_close(pair, expected(kernel, outputs), factor=10)
        seen.add((plan.block, plan.cotangents))
    assert len(seen) > 1


@pytest.mark.parametrize("method", ["structured", "vector-products"])
def test_projections_of_outputs(example, method):
    f, params, x, kernel = example
    projection = jax.random.normal(jax.random.key(3), (kernel.shape[2], 2))
    found = ntk.empirical.ntk(f, params, x, outputs=projection, method=method)
    product = jnp.einsum("ijab,ak,bl->ijkl", kernel, projection, projection)
    assert_close(found, product, factor=10)
    one = ntk.empirical.ntk(f, params, x, outputs=projection[:, 0], method=method)
    assert_close(one, product[:, :, 0, 0], factor=10)


def test_contributions_add_up_and_equal_subsets(example):
    f, params, x, kernel = example
    parts = ntk.empirical.contributions(f, params, x)
    assert list(parts) == [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    assert_close(sum(parts.values()), kernel, factor=10)
    name = next(iter(parts))
    alone = ntk.empirical.ntk(f, params, x, select=lambda path: path == name)
    assert_close(alone, parts[name], factor=10)
    mask = {path: path == name for path in params}
    assert_close(ntk.empirical.ntk(f, params, x, select=mask), parts[name], factor=10)
    groups = ntk.empirical.contributions(
        f, params, x, group=lambda path: "first" if path == name else "rest", outputs="trace"
    )
    assert_close(groups["first"], expected(parts[name], "trace"), factor=10)
    assert_close(groups["first"] + groups["rest"], expected(kernel, "trace"), factor=10)


def test_parameters_that_do_not_matter_contribute_zeros():
    f, params, x = CASES["parameters_that_do_not_matter"]()
    parts = ntk.empirical.contributions(f, params, x, outputs="trace")
    assert set(parts) == {"s", "t", "u", "w"}
    assert not any(parts[name].any() for name in "stu")
    plan = ntk.empirical.plan(f, params, x)
    assert {p.path: p.reason for p in plan.parameters}["u"] == "does not matter"
    nothing = ntk.empirical.ntk(f, params, x, select=lambda path: path == "u")
    np.testing.assert_array_equal(nothing, np.zeros((5, 5, 3, 3)))


def test_the_kernel_of_outputs(example):
    f, params, x, kernel = example
    y = f(params, x).reshape(len(kernel), -1)
    full = jnp.einsum("ia,jb->ijab", y, y)
    for outputs in ("full", "diagonal", "trace"):
        found = ntk.empirical.nngp(f, params, x, outputs=outputs)
        assert_close(found, expected(full, outputs), factor=10)
    assert_close(ntk.empirical.nngp(f, params, x, x), full, factor=10)
    ones = jnp.ones(y.shape[1])
    one = ntk.empirical.nngp(f, params, x, outputs=ones)
    seen = []
    small = ntk.empirical.nngp(f, params, x, x, memory=1, progress=lambda *done: seen.append(done))
    assert_close(small, full, factor=10)
    n = 2 * full.shape[0]
    assert seen == [(done, n) for done in range(1, n + 1)]
    assert_close(one, jnp.outer(y @ ones, y @ ones), factor=10)


@pytest.mark.parametrize(
    ("name", "path", "words"),
    [
        ("squared_weights", "w", "integer_pow"),
        ("long_scan", "w", "scan"),
        ("inside_a_branch_for_all", "w", "branch"),
        ("custom_jvp_of_parameters", "w", "own derivative rule"),
        ("custom_vjp_of_parameters", "w", "own derivative rule"),
        ("padded_and_concatenated_weights", "w", "concatenate"),
    ],
)
def test_the_plan_says_what_fell_back_and_why(name, path, words):
    f, params, x = CASES[name]()
    plan = ntk.empirical.plan(f, params, x)
    assert words in plan.fallbacks[path]
    assert plan.fallbacks[path] in str(plan)


@pytest.mark.parametrize(
    "name", ["inside_scan", "inside_fori_loop", "scan_backward_with_outputs", "scan_within_scan"]
)
def test_short_loops_need_no_fallback(name):
    f, params, x = CASES[name]()
    assert not ntk.empirical.plan(f, params, x).fallbacks


def test_the_plan_of_a_dense_network_has_no_fallback():
    f, params, x = CASES["dense_with_scaled_biases"]()
    plan = ntk.empirical.plan(f, params, x)
    assert plan.fallbacks == {}
    assert {p.path: p.method for p in plan.parameters}["w"] == "Gram products"
    assert "a column of ones in w" in str(plan)
    assert plan.operations > plan.passes > 0
    general = ntk.empirical.plan(f, params, x, method="jacobian")
    assert set(general.fallbacks) == {"w", "b", "v", "c"}


def test_positions_that_cannot_reach_the_output_are_left_out():
    def f(params, x, last):
        h = jnp.tanh(x @ params["w"])
        h = jax.nn.relu(h @ params["v"]) * params["s"][None, None]
        h = h[:, -1:] if last else h
        return h.reshape(len(x), -1, 2, 4).sum((1, 2)) @ params["u"]

    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"w": (3, 5), "v": (5, 8), "s": (8,), "u": (4, 2)}
    params = {n: jax.random.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}
    x = jax.random.normal(jax.random.key(1), (3, 64, 3))
    costs = [
        ntk.empirical.plan(lambda p, x, b=b: f(p, x, b), params, x).passes for b in (True, False)
    ]
    assert costs[0] < costs[1] / 4


@pytest.mark.parametrize("sizes", [(0, 0), (0, 2), (2, 0)])
def test_empty_batches_give_empty_kernels(sizes):
    f, params, x = CASES["dense"]()
    x1, x2 = (x[:n] for n in sizes)
    assert ntk.empirical.ntk(f, params, x1, x2).shape == (*sizes, 3, 3)
    assert ntk.empirical.ntk(f, params, x1, x2, outputs="trace").shape == sizes
    assert ntk.empirical.nngp(f, params, x1, x2, outputs="diagonal").shape == (*sizes, 3)
    assert ntk.empirical.contributions(f, params, x1, x2)["w"].shape == (*sizes, 3, 3)


def test_it_works_while_values_are_traced():
    f, params, x = CASES["sequence_to_last_position"]()
    kernel = ntk.empirical.ntk(f, params, x, outputs="trace")

    @jax.jit
    def scaled(params, x, factor):
        return ntk.empirical.ntk(lambda p, x: factor * f(p, x), params, x, outputs="trace")

    assert_close(scaled(params, x, jnp.asarray(2.0)), 4 * kernel, factor=10)
    slope = jax.grad(lambda s: scaled(params, x, s).sum())(jnp.asarray(2.0))
    assert_close(slope, 4 * kernel.sum(), factor=10)
    whole = ntk.empirical.plan(f, params, x, outputs="trace").bytes
    tiled = jax.jit(lambda p: ntk.empirical.ntk(f, p, x, outputs="trace", memory=whole / 2))
    assert_close(tiled(params), kernel, factor=10)
    stacked = jax.tree.map(lambda v: jnp.stack([v, 2 * v]), params)
    both = jax.vmap(lambda p: ntk.empirical.ntk(f, p, x, outputs="trace"))(stacked)
    assert_close(both[0], kernel, factor=10)


def test_a_function_is_traced_once():
    count = []

    def f(params, x):
        count.append(1)
        return jnp.tanh(x @ params)

    params, x = jnp.ones((3, 2)), jnp.eye(3)
    ntk.empirical.ntk(f, params, x)
    first = len(count)
    ntk.empirical.ntk(f, 2 * params, x)
    # Shapes are looked at again, by abstract evaluation, but nothing is compiled.
    assert len(count) - first <= 2


def test_functions_that_cannot_be_hashed():
    class Model:
        __hash__ = None

        def __eq__(self, other):
            return self is other

        def __call__(self, params, x):
            return x @ params

    params, x = jnp.ones((3, 2)), jnp.eye(3)
    found = ntk.empirical.ntk(Model(), params, x, outputs="trace")
    assert_close(found, np.eye(3))


def batch_norm(params, x):
    h = x @ params["w"]
    h = (h - h.mean(0, keepdims=True)) / jnp.sqrt(h.var(0, keepdims=True) + 1e-3)
    return h * params["s"][None]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"f": batch_norm}, "mixes the examples"),
        ({"f": lambda p, x: x @ p["w"] / len(x)}, "mixes the examples"),
        ({"f": lambda p, x: batch_norm(p, x) * 0 + p["s"][None] * 0}, None),
        ({"f": lambda p, x: jnp.argmax(x @ p["w"], -1)}, "no derivative"),
        ({"f": lambda p, x: (x @ p["w"]).astype(jnp.complex64)}, "no derivative"),
        ({"f": lambda p, x: (x, x)}, "expected one array"),
        ({"f": lambda p, x: x.sum()}, "one row an example"),
        ({"f": 3}, "expected a function"),
        ({"params": {"w": jnp.ones((4, 3), int), "s": jnp.ones(3, int)}}, "no floating-point"),
        ({"select": lambda path: False}, "select leaves none"),
        ({"select": {"w": True}}, "no prefix"),
        ({"select": {"w": 1, "s": 2}}, "True and False"),
        ({"x1": jnp.float32(1)}, "expected batches"),
        ({"x1": (jnp.ones((2, 4)), jnp.ones(3))}, "same number of examples"),
        ({"x2": jnp.ones((2, 5))}, "must be equal"),
        ({"x2": (jnp.ones((2, 4)),)}, "must be equal"),
        ({"x2": jnp.ones((2, 4), int)}, "must be equal"),
        ({"memory": 10}, "Allow at least"),
        ({"memory": 10, "method": "vector-products"}, "Allow at least"),
        ({"method": "fast"}, "choose 'auto'"),
        ({"outputs": "some"}, "choose 'full'"),
        ({"outputs": jnp.ones((4, 2))}, "for 3 outputs"),
    ],
)
def test_bad_input_is_explained(change, words):
    arguments = {
        "f": lambda p, x: jnp.tanh(x @ p["w"]) * p["s"][None],
        "params": {"w": jnp.ones((4, 3)), "s": jnp.ones(3)},
        "x1": jax.random.normal(jax.random.key(0), (5, 4)),
    } | change
    if words is None:
        ntk.empirical.ntk(**arguments)
        return
    with pytest.raises(InputError, match=words):
        ntk.empirical.ntk(**arguments)


def test_parameters_that_are_not_finite_are_named():
    f, params, x = CASES["dense"]()
    broken = params | {"v": params["v"].at[0, 0].set(jnp.nan)}
    with pytest.raises(NumericalError, match="parameters v hold NaN"):
        ntk.empirical.ntk(f, broken, x)


@pytest.mark.x64
@pytest.mark.parametrize("method", ["jacobian", "structured", "vector-products"])
@pytest.mark.parametrize("last", [True, False])
def test_layer_norm_in_float32_agrees_with_float64(method, last):
    """jaxlib 0.10 gets this wrong by 10%, if left to itself."""

    def f(params, x):
        h = x @ params["w"]
        h = h - h.mean(-1, keepdims=True)
        y = h * jax.lax.rsqrt((h**2).mean(-1, keepdims=True) + 1e-5)
        y = y * params["s"][None, None] + params["b"][None, None]
        return y[:, -1] if last else y.mean(1)

    w = jax.random.normal(jax.random.key(0), (128, 128))
    params = {"w": w, "s": jnp.ones(128), "b": jnp.zeros(128)}
    x = jax.random.normal(jax.random.key(1), (4, 32, 128))
    wide = ntk.empirical.ntk(f, params, x, method=method, outputs="trace")
    params, x = jax.tree.map(lambda v: v.astype(jnp.float32), (params, x))
    single = ntk.empirical.ntk(f, params, x, method=method, outputs="trace")
    assert_close(single, wide, factor=5)


def test_a_large_symmetric_kernel_from_panels_equals_the_square():
    f, params, _ = CASES["dense"]()
    x = jax.random.normal(jax.random.key(0), (250, 4))
    square = ntk.empirical.ntk(f, params, x, x)
    assert_close(ntk.empirical.ntk(f, params, x), square, factor=10)


def test_auto_takes_vector_products_where_gradients_are_long_and_outputs_many():
    key = jax.random.key(0)
    params = {"w": jax.random.normal(key, (20, 200)), "g": jnp.ones(200)}

    def f(p, x):  # weight normalization: no use of the weight is linear in it
        return x @ (p["w"] / jnp.linalg.norm(p["w"], axis=0, keepdims=True) * p["g"][None])

    x = jax.random.normal(key, (3, 20))
    plan = ntk.empirical.plan(f, params, x)
    assert plan.columns is not None
    assert plan.columns < plan.operations / 8
    assert "vector products" in str(plan)
    calls = []
    kernel = ntk.empirical.ntk(f, params, x, progress=lambda *call: calls.append(call))
    assert calls[-1][0] == calls[-1][1]
    assert_close(kernel, ntk.empirical.ntk(f, params, x, method="jacobian"), factor=20)
    few = ntk.empirical.plan(lambda p, x: f(p, x)[:, :2], params, x)
    assert few.columns is None


def test_plans_name_what_takes_the_general_rule():
    w = jnp.ones((3, 3))
    x = jnp.ones((2, 3))

    def looped(w, x):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, length=3000)[0]

    reasons = {
        "concatenate": lambda w, x: x @ jnp.concatenate([w, w], axis=1),
        "pad": lambda w, x: x @ jnp.pad(w, ((0, 0), (1, 1))),
        "scan": looped,
    }
    for word, f in reasons.items():
        assert word in ntk.empirical.plan(f, w, x).fallbacks[""]
