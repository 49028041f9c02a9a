"""Real digits: gaps scale with the width as theory says, with and without a kernel limit."""

import numpy as np
import pytest

import ntk_lab as ntk

pytestmark = pytest.mark.slow
nn = ntk.nn


def compare(parameterization, widths, learning_rate):
    data = ntk.data.digits(train=128, test=96)
    net = nn.Sequential(nn.Flatten(), nn.Dense(8, w_std=2**0.5), nn.Relu(), nn.Dense(10))
    return ntk.compare(
        net, *data, widths=widths, seeds=3, steps=100, record=(1, 10, 100), tolerance=0.1,
        learning_rate=learning_rate, parameterization=parameterization,
    )  # fmt: skip


@pytest.fixture(scope="module")
def kernel_limit():
    return compare("ntk", (32, 128, 512), 0.25)


@pytest.fixture(scope="module")
def mean_field():
    return compare("mean_field", (64, 512), 0.5)


@pytest.mark.parametrize("name", ["total", "finite-width kernel"])
def test_gaps_to_the_kernel_limit_fall_as_the_root_of_the_width(kernel_limit, name):
    means = kernel_limit.gap(name)[:, :, -1].mean(axis=1)
    assert (np.diff(means) < 0).all()
    e = kernel_limit.exponents()[name]
    assert -0.7 < e.value < -0.3
    assert e.lower - 0.1 < -0.5 < e.upper + 0.1
    assert e.theory == -0.5


def test_features_move_less_in_wider_networks(kernel_limit):
    assert kernel_limit.exponents()["feature learning"].upper < -0.4
    drift = kernel_limit.measures["drift"][:, :, -1].mean(axis=1)
    assert drift[0] > 2 * drift[1] > 4 * drift[2]


def test_the_required_width_is_where_the_gap_is_met(kernel_limit):
    needed = kernel_limit.required_width()
    assert 0 < needed.lower < needed.value < needed.upper < np.inf
    measured = np.exp(np.log(kernel_limit.gap()[:, :, -1]).mean(axis=1))
    at_needed = np.exp(np.interp(np.log(needed.value), np.log([32, 128, 512]), np.log(measured)))
    if needed.value < 512:
        assert at_needed == pytest.approx(0.1, rel=0.2)


def test_kernels_linearizations_and_networks_all_classify_better_than_chance(kernel_limit):
    for name in ("kernel flow", "kernel descent", "linearized", "network"):
        assert kernel_limit.measures[f"accuracy/{name}"][-1, :, -1].min() > 0.25


def test_a_mean_field_network_learns_features_at_every_width(mean_field):
    assert mean_field.dominant(512, 100) == "feature learning"
    assert mean_field.exponents()["total"].value > -0.25
    assert mean_field.measures["drift"][:, :, -1].min() > 0.3
    assert mean_field.exponents()["finite-width kernel"].value < -0.35


def test_kernel_regression_fails_a_mean_field_network_for_good(mean_field):
    for width in mean_field.widths:
        assert mean_field.verdicts[width, 100].status == "fails"
    assert mean_field.required_width().value == np.inf
    text = mean_field.conclusion()
    assert "'fails'; the largest gap is feature learning" in text
    assert "never (this parameterization has no kernel limit" in text
