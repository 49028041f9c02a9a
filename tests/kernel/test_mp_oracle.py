"""Fully connected kernels against the 60-digit oracle: angles from 1e-8 to pi, norms 1e-6 to 1e5.

Errors are relative to ``sqrt(k11 k22)``. References, inputs and the values of neural-tangents are
those of tests/golden/mp.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.kernel import Inputs

FOLDER = Path(__file__).parents[1] / "golden" / "mp"
META = json.loads((FOLDER / "mp_values.json").read_text())
DEPTHS = META["depths"]
NAMES = [f"{c['act']}-{c['W_std']:.3g}-{c['b_std']:.3g}" for c in META["configs"]]
RELU = [name for name in NAMES if name.startswith("relu")]
ERF = [name for name in NAMES if name.startswith("erf")]
DTYPES = [pytest.param("float64", marks=pytest.mark.x64), "float32"]


@pytest.fixture(scope="module")
def oracle():
    with np.load(FOLDER / "mp_pairs.npz") as file:
        return dict(file)


def layers(name):
    config = META["configs"][NAMES.index(name)]
    activation = {"relu": ntk.nn.Relu(), "erf": ntk.nn.Erf()}[config["act"]]
    return ntk.nn.Dense(1, config["W_std"], config["b_std"]), activation


def network(name, depth):
    dense, activation = layers(name)
    return ntk.nn.Sequential(*[dense, activation] * depth, dense)


def readouts(name, inputs):
    """Kernels at every stored depth: one network that is read out at each of them."""
    dense, activation = layers(name)
    state, kernels = inputs, {}
    for depth in range(1, max(DEPTHS) + 1):
        state = activation.propagate(dense.propagate(state))
        if depth in DEPTHS:
            out = dense.propagate(state)
            kernels[depth] = ntk.kernel.Kernel(out.cov.cov, out.ntk)
    return kernels


def batches(oracle, dtype, sizes=(64, 784)):
    """Batches of pairs of one shape; fewer channels become more without changing <x, x'>/d.

    The inputs have float32 entries and the factors few digits, powers of two in float32: nothing
    is rounded.
    """
    for size in sizes if dtype == "float32" else sizes[-1:]:
        smaller = 64 if size == 784 and dtype == "float32" else 0
        chosen = [p for p in META["pairs"] if smaller < p["d"] <= size]
        index = [p["index"] for p in chosen]
        yield (
            index,
            *(
                jnp.asarray(np.stack([widen(oracle[f"{x}_{i}"], size) for i in index]), dtype)
                for x in ("x1", "x2")
            ),
        )


def widen(x, size):
    return np.pad(x * np.sqrt(size / len(x)), (0, size - len(x)))


def reference(oracle, which, name, depth):
    """Values at the pairs, and the scale ``sqrt(k11 k22)`` of their errors (one for zeros)."""
    at = (slice(None), NAMES.index(name), DEPTHS.index(depth))
    scale = np.sqrt(oracle[f"{which}11"][at] * oracle[f"{which}22"][at])
    return oracle[which][at], np.where(scale > 0, scale, 1)


def largest_pair_error(oracle, name, depth, dtype, sizes=(64, 784)):
    """Of the compiled kernels of two batches, over both kernels and all pairs."""
    kernel, worst = network(name, depth).kernel, 0.0
    for index, x1, x2 in batches(oracle, dtype, sizes):
        for which, value in kernel(x1, x2)._asdict().items():
            assert value.dtype == dtype
            expected, scale = reference(oracle, which, name, depth)
            error = np.abs(np.diag(value).astype(np.float64) - expected[index]) / scale[index]
            worst = max(worst, error.max())
    return worst


@pytest.fixture(scope="module")
def deep(oracle):
    """Errors of every pair and of every diagonal entry, at every depth, computed once."""
    cache = {}

    def errors(name, dtype):
        if (name, dtype) not in cache:
            cache[name, dtype] = _deep_errors(oracle, name, dtype)
        return cache[name, dtype]

    return errors


def _deep_errors(oracle, name, dtype):
    pairs, diagonals = ({d: {"nngp": 0.0, "ntk": 0.0} for d in DEPTHS} for _ in range(2))
    for index, x1, x2 in batches(oracle, dtype):
        x, m = jnp.concatenate([x1, x2]), len(index)
        for depth, kernel in readouts(name, Inputs(x, x, overlap=2 * m)).items():
            for which, value in kernel._asdict().items():
                value = np.asarray(value, np.float64)
                expected, scale = reference(oracle, which, name, depth)
                error = np.abs(np.diag(value, m) - expected[index]) / scale[index]
                pairs[depth][which] = max(pairs[depth][which], error.max())
                at = (index, NAMES.index(name), DEPTHS.index(depth))
                variances = np.concatenate([oracle[f"{which}{k}{k}"][at] for k in (1, 2)])
                error = np.abs(np.diag(value) - variances) / np.where(variances > 0, variances, 1)
                diagonals[depth][which] = max(diagonals[depth][which], error.max())
    return pairs, diagonals


def relu_tolerance(depth, dtype):
    if dtype == "float64":
        return 1e-13 if depth <= 10 else 1e-12
    return 2e-6 if depth <= 10 else 1e-5


def incumbent_tolerance(oracle, name, depth, dtype):
    """Twice the largest error of neural-tangents, or 16 roundings, or one for each layer."""
    with np.load(FOLDER / f"nt_{dtype}.npz") as file:
        theirs = {which: file[which] for which in ("nngp", "ntk")}
    worst = max(16, depth) * float(np.finfo(dtype).eps)
    for which, values in theirs.items():
        expected, scale = reference(oracle, which, name, depth)
        value = values[:, NAMES.index(name), DEPTHS.index(depth)].astype(np.float64)
        worst = max(worst, 2 * np.nanmax(np.abs(value - expected) / scale))
    return worst


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RELU)
def test_relu_kernels_are_right_to_rounding_at_every_angle_norm_and_depth(name, dtype, deep):
    pairs, diagonals = deep(name, dtype)
    for depth in DEPTHS:
        for which in ("nngp", "ntk"):
            assert pairs[depth][which] <= relu_tolerance(depth, dtype), (depth, which)
            assert diagonals[depth][which] <= relu_tolerance(depth, dtype), (depth, which)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ERF)
def test_erf_kernels_are_no_worse_than_those_of_neural_tangents(name, dtype, deep, oracle):
    """At every depth, up to a factor of two and 16 roundings.

    With weights of 1.5, depth 50 amplifies rounding of the inputs 1e5 times whoever computes it.
    """
    pairs, _ = deep(name, dtype)
    for depth in DEPTHS:
        assert max(pairs[depth].values()) <= incumbent_tolerance(oracle, name, depth, dtype), depth


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RELU)
def test_compiled_relu_kernels_of_two_batches_are_right_to_rounding(name, dtype, oracle):
    assert largest_pair_error(oracle, name, 3, dtype) <= relu_tolerance(3, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_relu_kernels_of_depth_50_are_right_to_rounding(dtype, oracle):
    error = largest_pair_error(oracle, RELU[0], 50, dtype, sizes=(64,))
    assert error <= relu_tolerance(50, dtype)
