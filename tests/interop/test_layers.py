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
    tolerance = 1e-12 if x1.dtype == np.float64 else 1e-5
    for actual, reference in ((kernel.nngp, expected.nngp), (kernel.ntk, expected.ntk)):
        assert actual.shape == reference.shape
        assert np.abs(actual - reference).max() <= tolerance * np.abs(reference).max()


@pytest.fixture
def images():
    return tuple(jax.random.normal(jax.random.key(i), (2, 4, 3, 2)) for i in range(2))


@pytest.mark.slow
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


def test_standard_parameterization_with_factors(stax):
    x1, x2 = (jax.random.normal(jax.random.key(i), (3, 4)) for i in range(2))
    factors = (1, 2), (2, 3), (3, 1)
    ours, theirs = [], []
    for width, s in zip((8, 6, 1), factors, strict=True):
        ours += [nn.Dense(width, 1.3, 0.2, nn.Standard(s)), nn.Erf()]
        theirs += [stax.Dense(width, 1.3, 0.2, parameterization="standard", s=s), stax.Erf()]
    assert_kernels_agree(nn.Sequential(*ours[:-1]), stax.serial(*theirs[:-1]), x1, x2)


def test_graphs(stax):
    """Edges between all nodes, and between the columns of a grid."""
    x1, x2 = (jax.random.normal(jax.random.key(i), (2, 3, 4, 2)) for i in range(2))
    for axes, sizes in (((1, 2), (3, 4)), ((2,), (4,))):
        patterns = [jax.random.uniform(jax.random.key(i), (2, *sizes, *sizes)) for i in range(2)]
        net = nn.Sequential(nn.Dense(8), nn.Relu(), nn.Aggregate(axes), nn.GlobalAvgPool())
        triple = stax.serial(stax.Dense(8), stax.Relu(), stax.Aggregate(axes), stax.GlobalAvgPool())
        with bridge.relaxed_promotion():
            expected = triple[2](x1, x2, ("nngp", "ntk"), pattern=tuple(patterns))
        kernel = net.kernel(nn.Graph(x1, patterns[0]), nn.Graph(x2, patterns[1]))
        tolerance = 1e-12 if x1.dtype == np.float64 else 1e-5
        for actual, reference in ((kernel.nngp, expected.nngp), (kernel.ntk, expected.ntk)):
            assert np.abs(actual - reference).max() <= tolerance * np.abs(reference).max()


def test_linear_maps_of_positions(stax, images):
    contract = (((1,), (0,)), ((), ()))
    array = np.array([[1.0, -1.0], [0.5, 2.0], [0.0, 1.0], [1.0, 1.0]])
    maps = [
        (
            nn.Index((slice(None, None, 2), slice(0, 2))),
            stax.Index(stax.Slice[:, ::2, 0:2, :]),
        ),
        (nn.ImageResize((5, 2), "linear"), stax.ImageResize((-1, 5, 2, -1), "linear")),
        (
            nn.DotGeneral(rhs=array[:, 0], dimension_numbers=contract),
            stax.DotGeneral(rhs=array[:, 0], dimension_numbers=contract),
        ),
    ]
    for ours, theirs in maps:
        net = nn.Sequential(nn.Dense(8, 1.2, 0.1), nn.Relu(), ours, nn.GlobalAvgPool())
        triple = stax.serial(stax.Dense(8, 1.2, 0.1), stax.Relu(), theirs, stax.GlobalAvgPool())
        assert_kernels_agree(net, triple, *images)
