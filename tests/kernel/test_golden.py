"""Kernels agree with stored values of neural-tangents 0.6.5, or of 300-node quadrature for tanh."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lab.nn import Graph
from tests.golden_nets import NotBuilt, build

FOLDER = Path(__file__).parents[1] / "golden" / "public"
BUILT = {
    "fc_layernorm",
    "fc_dropout",
    "attention_softmax_linear",
    "fc_relu_d1_nobias",
    "fc_relu_d3_he",
    "fc_relu_d12_he",
    "fc_linear_d3",
    "fc_erf_d2",
    "fc_gelu_d2",
    "fc_tanh_numerical",
    "fc_leakyrelu_d2",
    "fc_abs_d4_nobias",
    "fc_sigmoid_like_d1",
    "fc_sin_cos_rbf",
    "fc_gaussian_d1",
    "fc_exp_d1",
    "fc_sign_d2",
    "fc_monomial3_d1",
    "fc_polynomial_d1",
    "fc_hermite2_unit",
    "fc_expnormalized_d2",
    "fc_relu_standard_param",
    "fc_resnet",
    "fc_faninconcat",
    "graph_aggregate_d1",
    "conv1d_same_flatten",
    "conv2d_same_gap",
    "conv2d_valid_stride_avgpool",
    "conv2d_circular_flatten",
    "fc_relu_identical_inputs",
    "fc_relu_antipodal",
    "fc_relu_tiny_1e-8",
    "fc_relu_zero_input",
}


def _cases():
    for case in json.loads((FOLDER / "cases.json").read_text())["cases"]:
        try:
            yield case["id"], (case, build(case["net"]))
        except NotBuilt:
            continue


CASES = dict(_cases())


@pytest.fixture(scope="module")
def arrays():
    with np.load(FOLDER / "cases.npz") as file:
        return dict(file)


def reference(case, arrays, name):
    # What neural-tangents gives for tanh is 25-node quadrature, off by up to 1e-2.
    prefix = "exact_" if "numerical" in case["tags"] else ""
    return arrays[f"{case['id']}/{prefix}{name}"]


def error(actual, expected):
    """Largest error, relative to the largest value; stored defects of the reference left out."""
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    known = np.isfinite(expected)
    return np.abs(actual - expected)[known].max() / np.abs(expected[known]).max()


def test_every_stored_architecture_that_has_its_layers_here_is_built():
    assert set(CASES) >= BUILT


def assert_match(case, arrays, pairs, kernel):
    for which, value in kernel.items():
        # In float32 the reference is what is right for the inputs before they were rounded.
        tolerance = 2e-6 if value.dtype == jnp.float32 else case["rtol"][f"{which}_{pairs}"]
        expected = reference(case, arrays, f"{which}_{pairs}")
        assert error(np.asarray(value, np.float64), expected) <= tolerance, which


def inputs(name, arrays):
    stored = {key: jnp.asarray(arrays[f"{name}/{key}"], float) for key in ("x1", "x2")}
    if f"{name}/pattern1" not in arrays:
        return stored["x1"], stored["x2"]
    patterns = (jnp.asarray(arrays[f"{name}/pattern{i}"], float) for i in (1, 2))
    return tuple(Graph(x, p) for x, p in zip(stored.values(), patterns, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_kernels_of_one_batch_match(name, arrays):
    """Both blocks of the kernel of all inputs together: one compilation instead of two."""
    case, net = CASES[name]
    x1, x2 = inputs(name, arrays)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), x1, x2)
    kernel, n = net.kernel(both), len(x1)
    assert_match(case, arrays, "11", {which: k[:n, :n] for which, k in kernel._asdict().items()})
    assert_match(case, arrays, "12", {which: k[:n, n:] for which, k in kernel._asdict().items()})


@pytest.mark.parametrize(
    "name",
    ["fc_relu_d3_he", "fc_erf_d2", "fc_resnet", "fc_relu_identical_inputs", "fc_relu_antipodal"],
)
def test_kernels_of_two_batches_match(name, arrays):
    case, net = CASES[name]
    assert_match(case, arrays, "12", net.kernel(*inputs(name, arrays))._asdict())
