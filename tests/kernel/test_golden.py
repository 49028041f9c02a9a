"""Kernels agree with stored values of neural-tangents 0.6.5, or of 300-node quadrature for tanh."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden_nets import NotBuilt, build

FOLDER = Path(__file__).parents[1] / "golden" / "public"
BUILT = {
    "fc_relu_d1_nobias",
    "fc_relu_d3_he",
    "fc_relu_d12_he",
    "fc_linear_d3",
    "fc_erf_d2",
    "fc_gelu_d2",
    "fc_tanh_numerical",
    "fc_relu_standard_param",
    "fc_resnet",
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


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("pairs", ["12", "11"])
def test_kernels_match(name, pairs, arrays):
    case, net = CASES[name]
    dtype = jnp.result_type(float)
    x1, x2 = (jnp.asarray(arrays[f"{name}/{x}"], dtype) for x in ("x1", "x2"))
    kernel = net.kernel(x1, x2 if pairs == "12" else None)
    for which, value in kernel._asdict().items():
        assert value.dtype == dtype
        # In float32 the reference is what is right for the inputs before they were rounded.
        tolerance = case["rtol"][f"{which}_{pairs}"] if dtype == jnp.float64 else 2e-6
        expected = reference(case, arrays, f"{which}_{pairs}")
        assert error(np.asarray(value, np.float64), expected) <= tolerance, which
