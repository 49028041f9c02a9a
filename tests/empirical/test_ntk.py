"""Empirical kernels against stored values, explicit Jacobians and themselves in other tiles."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError
from tests.tolerance import assert_close

FOLDER = Path(__file__).parents[1] / "golden" / "empirical"
MODELS = {m["name"]: m for m in json.loads((FOLDER / "empirical.json").read_text())["models"]}


def conv(layer, params, x):
    """Convolution in NTK parameterization, channels last."""
    w, (h, v) = params["w"], layer["filter_shape"]
    scale = layer["W_std"] / float(h * v * w.shape[2]) ** 0.5
    padding = layer["padding"]
    if padding == "CIRCULAR":
        x, padding = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap"), "VALID"
    y = jax.lax.conv_general_dilated(
        x, w, layer["strides"], padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return scale * y + (layer["b_std"] * params["b"][None, None, None] if "b" in params else 0)


def apply_layer(layer, params, x):
    match layer["layer"]:
        case "Conv":
            return conv(layer, params, x)
        case "Flatten":
            return x.reshape(len(x), -1)
        case "AvgPool":
            total = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            return total / 4
        case "GlobalAvgPool":
            return x.mean((1, 2))
        case "Dense":
            dense = ntk.nn.Dense(
                layer["width"], layer["W_std"], layer["b_std"], layer["parameterization"]
            )
            return dense.apply(params, x)
        case name:
            return getattr(ntk.nn, name)().apply((), x)


def load(name, dtype=float):
    """The stored model as a function, its parameters, and the stored arrays."""
    model = MODELS[name]
    with np.load(FOLDER / "empirical.npz") as file:
        arrays = {k.removeprefix(f"{name}/"): file[k] for k in file.files if k.startswith(name)}

    def tree(prefix):
        result = [{} for _ in model["net"]["layers"]]
        for index, kind, shape in model["param_shapes"]:
            value = jnp.asarray(arrays[f"{prefix}/{index}/{kind}"], dtype)
            result[index][kind.lower()] = value.reshape(shape[-1:] if kind == "b" else shape)
        return result

    def f(params, x):
        for layer, p in zip(model["net"]["layers"], params, strict=True):
            x = apply_layer(layer, p, x)
        return x

    return f, tree("params"), tree("delta"), arrays


@pytest.mark.x64
@pytest.mark.parametrize("name", MODELS)
def test_stored_values_are_reproduced(name):
    f, params, delta, ref = load(name)
    x1, x2 = jnp.asarray(ref["x1"]), jnp.asarray(ref["x2"])
    assert_close(f(params, x1), ref["fx1"])
    for x, tag in ((x2, "12"), (None, "11")):
        assert_close(ntk.empirical.ntk(f, params, x1, x), ref[f"ntk_full_{tag}"])
        assert_close(ntk.empirical.ntk(f, params, x1, x, outputs="trace"), ref[f"ntk_trace_{tag}"])
    assert_close(ntk.empirical.ntk(f, params, x1, x2, outputs="diagonal"), ref["ntk_diag_12"])
    moved = jax.tree.map(jnp.add, params, delta)
    assert_close(ntk.empirical.linearize(f, params)(moved, x1), ref["linearize"])


@pytest.mark.x64
@pytest.mark.parametrize("name", ["mlp_standard_param", "cnn_circular_gap"])
def test_float32_agrees_with_float64(name):
    f, params, _, ref = load(name, jnp.float32)
    kernel = ntk.empirical.ntk(f, params, jnp.asarray(ref["x1"], jnp.float32))
    assert kernel.dtype == jnp.float32
    assert_close(kernel, ref["ntk_full_11"])


@pytest.fixture(scope="module")
def model():
    """Several output axes, and parameters in nested containers."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "in": (jax.random.normal(keys[0], (3, 5)), jnp.zeros(5)),
        "out": [jax.random.normal(keys[1], (5, 2, 3))],
    }

    def f(params, x):
        w, b = params["in"]
        return jnp.einsum("nh,hab->nab", jnp.tanh(x @ w + b[None, :]), params["out"][0])

    return f, params, jax.random.normal(keys[2], (7, 3)), jax.random.normal(keys[3], (4, 3))


def explicit(f, params, x1, x2):
    rows = []
    for x in (x1, x2):
        jacobian = jax.jacobian(lambda p, x=x: f(p, x).reshape(len(x), -1))(params)
        leaves = [j.reshape(len(x), 6, -1) for j in jax.tree.leaves(jacobian)]
        rows.append(np.concatenate([np.asarray(leaf) for leaf in leaves], axis=2))
    return np.einsum("iap,jbp->ijab", *rows)


def test_all_output_kinds_equal_the_explicit_jacobian_product(model):
    f, params, x1, x2 = model
    expected = explicit(f, params, x1, x2)
    assert_close(ntk.empirical.ntk(f, params, x1, x2), expected)
    diagonal = np.einsum("ijaa->ija", expected)
    assert_close(ntk.empirical.ntk(f, params, x1, x2, outputs="diagonal"), diagonal)
    assert_close(ntk.empirical.ntk(f, params, x1, x2, outputs="trace"), diagonal.mean(2))


@pytest.mark.parametrize("outputs", ["full", "diagonal", "trace"])
@pytest.mark.parametrize("rows", [1, 4, 13])
def test_every_memory_limit_gives_the_same_kernel(model, outputs, rows):
    f, params, x1, _ = model
    row = sum(p.size * p.dtype.itemsize for p in jax.tree.leaves(params))
    memory = 4 * row * rows
    whole = ntk.empirical.ntk(f, params, x1, outputs=outputs)
    tiled = ntk.empirical.ntk(f, params, x1, outputs=outputs, memory=memory)
    assert_close(tiled, whole)
    assert_close(ntk.empirical.ntk(f, params, x1, x1, outputs=outputs, memory=memory), whole)


def test_the_kernel_is_positive_semi_definite_and_symmetric(model):
    f, params, x1, _ = model
    kernel = np.asarray(ntk.empirical.ntk(f, params, x1)).transpose(0, 2, 1, 3).reshape(42, 42)
    assert_close(kernel, kernel.T)
    values = np.linalg.eigvalsh(kernel)
    assert values[0] > -100 * np.finfo(kernel.dtype).eps * values[-1]


def test_it_can_be_compiled_and_differentiated(model):
    f, params, x1, x2 = model

    def trace(params):
        return ntk.empirical.ntk(f, params, x1, x2, outputs="trace")

    assert_close(jax.jit(trace)(params), trace(params))
    gradient = jax.grad(lambda p: trace(p).sum())(params)
    step = 1e-3 if params["in"][1].dtype == jnp.float32 else 1e-6
    bumped = {**params, "out": [params["out"][0].at[0, 0, 0].add(step)]}
    lowered = {**params, "out": [params["out"][0].at[0, 0, 0].add(-step)]}
    slope = (trace(bumped).sum() - trace(lowered).sum()) / (2 * step)
    np.testing.assert_allclose(gradient["out"][0][0, 0, 0], slope, rtol=2e-3)


def test_the_linearization_errs_by_the_square_of_the_step(model):
    f, params, x1, _ = model
    direction = jax.tree.map(jnp.ones_like, params)
    linear = ntk.empirical.linearize(f, params)
    errors = []
    for step in (0.1, 0.05, 0.025):
        moved = jax.tree.map(lambda p, d, step=step: p + step * d, params, direction)
        errors.append(float(jnp.linalg.norm(linear(moved, x1) - f(moved, x1))))
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    np.testing.assert_allclose(slopes, 2, atol=0.15)  # the next order adds about the step itself
    np.testing.assert_array_equal(linear(params, x1), f(params, x1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outputs": "some"}, "choose 'full'"),
        ({"x2": jnp.zeros((2, 4))}, "must be equal"),
        ({"memory": 100}, "Allow at least"),
        ({"f": lambda p, x: x.sum()}, "one row an example"),
    ],
)
def test_bad_input_is_explained(model, change, words):
    f, params, x1, _ = model
    arguments = {"f": f, "params": params, "x1": x1} | change
    with pytest.raises(InputError, match=words):
        ntk.empirical.ntk(**arguments)


def test_a_kernel_that_is_not_finite_is_refused(model):
    f, params, x1, _ = model
    with pytest.raises(NumericalError, match="not finite"):
        ntk.empirical.ntk(f, params, x1.at[2, 0].set(jnp.nan))
