"""Kernels of layers without stored values, against neural-tangents itself."""

import warnings

import jax
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.interop import neural_tangents as bridge

nn = ntk.nn


@pytest.fixture(scope="module")
def stax():
    if not bridge.is_available():
        pytest.skip("neural-tangents 0.6.5 is not installed")
    return bridge.load().stax


def assert_kernels_agree(net, triple, x1, x2):
    with bridge.relaxed_promotion(), warnings.catch_warnings():
        # That branches are independent is for the user to know there; here it is checked.
        warnings.simplefilter("ignore", UserWarning)
        expected = triple[2](x1, x2, ("nngp", "ntk"))
    kernel = net.kernel(x1, x2)
    tolerance = 1e-12 if x1.dtype == np.float64 else 2e-6
    for actual, reference in ((kernel.nngp, expected.nngp), (kernel.ntk, expected.ntk)):
        assert actual.shape == reference.shape
        assert np.abs(actual - reference).max() <= tolerance * np.abs(reference).max()


@pytest.fixture
def images():
    return tuple(jax.random.normal(jax.random.key(i), (2, 4, 3, 2)) for i in range(2))


@pytest.mark.parametrize(
    ("name", "strides", "padding"),
    [
        ("ConvTranspose", (2, 1), "SAME"),
        ("ConvTranspose", (3, 2), "VALID"),
        ("ConvLocal", (2, 1), "SAME"),
        ("ConvLocal", (1, 1), "CIRCULAR"),
    ],
)
def test_convolutions(name, strides, padding, stax, images):
    def layers(library, **second):
        return (
            getattr(library, name)(8, (3, 2), strides, padding=padding, b_std=0.3),
            library.Relu(),
            library.Conv(8, (2, 2), padding="VALID", **second),
            library.GlobalAvgPool(),
        )

    theirs = stax.serial(*layers(stax, W_std=1.1))
    assert_kernels_agree(nn.Sequential(*layers(nn, w_std=1.1)), theirs, *images)


@pytest.mark.parametrize("combine", ["FanInSum", "FanInProd", "FanInConcat"])
def test_branches(combine, stax, images):
    body = [(nn.Relu(), stax.Relu()), (nn.Erf(), stax.Erf())]
    ours = [nn.Sequential(a, nn.Dense(w)) for (a, _), w in zip(body, (8, 8), strict=True)]
    theirs = [stax.serial(a, stax.Dense(w)) for (_, a), w in zip(body, (8, 8), strict=True)]
    combined = {"FanInSum": nn.Sum, "FanInProd": nn.Product}.get(combine)
    middle = nn.Concat(*ours, axis=1) if combined is None else combined(*ours)
    fan_in = stax.FanInConcat(1) if combined is None else getattr(stax, combine)()
    net = nn.Sequential(nn.Dense(8, 1.2, 0.1), middle, nn.GlobalAvgPool(), nn.Dense(1))
    triple = stax.serial(
        stax.Dense(8, 1.2, 0.1),
        stax.FanOut(2),
        stax.parallel(*theirs),
        fan_in,
        stax.GlobalAvgPool(),
        stax.Dense(1),
    )
    assert_kernels_agree(net, triple, *images)
