"""Verdicts from the gaps of several seeds: coverage by simulation, and what decides them."""

import numpy as np
import pytest

from ntk_lab.compare.statistics import judge
from ntk_lab.empirical.alignment import alignment

DRAWS = 2000


def draws(mean, spread, seeds, count=DRAWS):
    return np.random.default_rng(7).normal(mean, spread, (count, seeds))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("seeds", [2, 8])
def test_one_sided_bounds_cover_the_true_mean_as_often_as_they_say(seeds, confidence):
    verdicts = [judge(gaps, 0.1, confidence) for gaps in draws(10.0, 1.0, seeds)]
    error = (confidence * (1 - confidence) / DRAWS) ** 0.5
    for covered in (
        np.mean([v.upper > 10.0 for v in verdicts]),
        np.mean([v.lower < 10.0 for v in verdicts]),
    ):
        assert abs(covered - confidence) < 4 * error


def test_wrong_verdicts_at_the_tolerance_are_as_rare_as_the_confidence_says():
    verdicts = [judge(gaps, 10.0, 0.95).status for gaps in draws(10.0, 1.0, 5, 1000)]
    for status in ("predicts", "fails"):
        assert verdicts.count(status) / 1000 == pytest.approx(0.05, abs=0.028)


@pytest.mark.parametrize(
    ("gaps", "status"),
    [
        ([0.05, 0.06, 0.055], "predicts"),
        ([0.25, 0.26, 0.255], "fails"),
        ([0.05, 0.16, 0.10], "undecided"),
        ([0.0, 0.0], "predicts"),
        ([0.2, 0.2], "fails"),
        ([0.1, 0.1], "undecided"),
    ],
)
def test_three_statuses(gaps, status):
    v = judge(np.array(gaps), 0.1, 0.95)
    assert v.status == status
    assert v.mean == pytest.approx(np.mean(gaps))
    assert v.standard_error == pytest.approx(np.std(gaps, ddof=1) / len(gaps) ** 0.5)
    assert 0 <= v.lower <= v.mean <= v.upper
    assert (v.more_seeds == 0) == (status != "undecided")


def test_bounds_are_those_of_student():
    # t of 2 degrees of freedom at 95%: 2.91999 (any table).
    v = judge(np.array([1.0, 2.0, 3.0]), 0.1, 0.95)
    assert v.upper - v.mean == pytest.approx(2.91999 / 3**0.5, rel=1e-5)


def test_one_seed_is_undecided_and_promises_nothing():
    v = judge(np.array([0.01]), 0.1, 0.95)
    assert v.status == "undecided"
    assert v.mean == 0.01
    assert np.isnan([v.standard_error, v.lower, v.upper]).all()
    assert v.more_seeds is None


def test_nan_gaps_are_never_a_verdict():
    assert judge(np.array([np.nan, 0.01]), 0.1, 0.95).status == "undecided"


def test_more_seeds_are_the_fewest_that_decide_at_the_same_mean_and_spread():
    gaps = np.array([0.05, 0.11, 0.08])
    v = judge(gaps, 0.1, 0.95)
    assert v.status == "undecided"
    mean, spread = gaps.mean(), gaps.std(ddof=1)

    def status(seeds):
        """Of that many gaps with exactly this mean and spread."""
        g = np.linspace(-1, 1, seeds)
        return judge(mean + spread * g / g.std(ddof=1), 0.1, 0.95).status

    assert status(3 + v.more_seeds) == "predicts"
    assert status(3 + v.more_seeds - 1) == "undecided"


def test_drawing_that_many_more_seeds_brings_the_bound_to_the_tolerance_in_the_mean():
    mean, spread = 0.08, 0.03
    g = np.array([-1.0, 0.0, 1.0])
    first = judge(mean + spread * g, 0.1, 0.95)
    uppers = [judge(d, 0.1, 0.95).upper for d in draws(mean, spread, 3 + first.more_seeds, 500)]
    assert np.mean(uppers) < 0.1
    fewer = [judge(d, 0.1, 0.95).upper for d in draws(mean, spread, 3, 500)]
    assert np.mean(fewer) > 0.1


def test_a_mean_on_the_tolerance_is_beyond_any_number_of_seeds():
    assert judge(np.array([0.05, 0.15]), 0.1, 0.95).more_seeds is None


def test_alignment_is_one_for_the_targets_own_kernel_and_bounded():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(7, 3))
    assert alignment(y @ y.T, y @ y.T) == pytest.approx(1)
    assert alignment(-5 * y @ y.T, y @ y.T) == pytest.approx(-1)
    # A constant added to a kernel does not change its alignment: it is centred away.
    assert alignment(y @ y.T + 40, y @ y.T) == pytest.approx(1)
    for _ in range(50):
        a, b = (rng.normal(size=(7, 7)) for _ in range(2))
        assert -1 <= alignment(a @ a.T, b + b.T) <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_alignment_with_targets_that_are_all_equal_does_not_exist(dtype):
    y = np.full((24, 10), 0.1, dtype) - np.eye(10, dtype=dtype)[3] / 3
    k = np.eye(24, dtype=dtype)
    assert np.isnan(alignment(k, y @ y.T))
    assert np.isnan(alignment(y @ y.T, k))
