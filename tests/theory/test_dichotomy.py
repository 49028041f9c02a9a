"""The dynamical dichotomy: parameterizations of the literature, and what networks do."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError

nn, theory = ntk.nn, ntk.theory
E = theory.Exponents
NET = nn.Sequential(nn.Dense(8), nn.Erf(), nn.Dense(8), nn.Erf(), nn.Dense(1))
# Table 1 of arXiv:2011.14522, with two hidden layers, and parameterizations between and beyond.
TABLE = {
    "ntk": (E((0, 0.5, 0.5), (0, 0, 0), 0), "kernel", 0.5),
    "standard": (E((0, 0, 0), (0, 0.5, 0.5), 1), "kernel", 0.5),
    "standard, rate of one": (E((0, 0, 0), (0, 0.5, 0.5), 0), "unstable", -1.0),
    "mup": (E((-0.5, 0, 0.5), (0.5, 0.5, 0.5), 0), "feature learning", 0.0),
    "mean field": (E((0, 1), (0, 0), -1), "feature learning", 0.0),
    "between": (E((-0.25, 0.25, 0.5), (0.25, 0.25, 0.25), 0), "kernel", 0.25),
    "slow": (E((0, 0.5, 0.5), (0, 0, 0), 0.5), "trivial", 1.0),
    "large": (E((0, 0, 0.5), (0, 0.5, 0), 0), "unstable", -0.5),
}


@pytest.mark.parametrize("name", TABLE)
def test_parameterizations_of_the_literature(name):
    exponents, kind, r = TABLE[name]
    found = theory.dynamical_dichotomy(exponents)
    assert (found.name, found.exponents.r) == (kind, r)
    assert found.kernel_limit == (kind == "kernel")
    assert found.reason


@pytest.mark.parametrize("name", ["ntk", "standard", "mup"])
def test_networks_have_the_exponents_of_the_table(name):
    assert theory.abc_exponents(NET.with_parameterization(name)) == TABLE[name][0]


def test_every_parameterization_of_the_library_agrees_with_its_width_theory():
    for name in ("ntk", "standard", "mup", "mean_field"):
        found = theory.dynamical_dichotomy(NET.with_parameterization(name))
        assert found.kernel_limit == theory.width_theory(name).kernel_limit
        assert found.stable
        assert not found.trivial


def test_a_shift_of_a_b_and_c_changes_nothing():
    # Symmetry of arXiv:2011.14522: a + x, b - x, c - 2x.
    for exponents, _, _ in TABLE.values():
        x = 0.3
        shifted = E([a + x for a in exponents.a], [b - x for b in exponents.b], exponents.c - 2 * x)
        found, moved = (theory.dynamical_dichotomy(e) for e in (exponents, shifted))
        assert moved.name == found.name
        np.testing.assert_allclose(moved.exponents.r, exponents.r, atol=1e-12)
        np.testing.assert_allclose(moved.exponents.output, exponents.output, atol=1e-12)


def test_networks_made_of_exponents_have_them():
    for exponents, _, _ in TABLE.values():
        assert theory.abc_exponents(exponents.network(nn.Erf(), 16)) == exponents


def test_reasons_name_what_is_broken():
    for exponents, reason in (
        (E((0.5, 0.5, 0.5), (0, 0, 0), 0), "first layer must be 0"),
        (E((0, 1, 0.5), (0, 0, 0), 0), "layer 2 must be 1/2"),
        (E((0, 0.5, 0), (0, 0, 0), 1), "readout is below 1/2"),
        (E((0, 0.5, 0), (0, 0, 1), 0.5), "2a [+] c = 0.5 of the readout is below 1"),
    ):
        found = theory.dynamical_dichotomy(exponents)
        assert not found.stable
        assert re.search(reason, found.reason), found.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ntk", "mup", "slow"])
def test_features_move_by_the_predicted_power_of_the_width(name):
    exponents = TABLE[name][0]
    x = jax.random.normal(jax.random.key(0), (6, 4))
    y = jnp.sign(x[:, :1])
    found = theory.coordinate_check(
        exponents.network(nn.Erf(), 8), x, y, jax.random.key(1), widths=(64, 512),
        learning_rate=0.5, steps=3, seeds=6,
    )  # fmt: skip
    assert found.layers == ("Dense", "Erf", "Dense", "Erf", "Dense")
    power, error = found.exponents()
    for layer, predicted in ((3, -exponents.r), (4, -exponents.output)):
        assert abs(power[layer] - predicted) < max(4 * error[layer], 0.12), (layer, power, error)


def test_bad_requests_say_what_to_do():
    with pytest.raises(InputError, match="at least two"):
        E((0,), (0,), 0)
    with pytest.raises(InputError, match="finite"):
        E((0, float("nan")), (0, 0), 0)
    with pytest.raises(InputError, match="hidden layer"):
        theory.abc_exponents(nn.Dense(1))
    with pytest.raises(InputError, match="two or more"):
        theory.coordinate_check(
            NET, jnp.eye(2), jnp.ones((2, 1)), jax.random.key(0), widths=(8,), learning_rate=0.1
        )
