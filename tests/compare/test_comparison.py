"""A comparison keeps its numbers, answers by name, and says what they say."""

import dataclasses
import re

import numpy as np
import pytest

from ntk_lab.compare import Comparison, RequiredWidth
from ntk_lab.compare.text import required_width_text, verdict_text
from ntk_lab.errors import InputError
from tests.compare.problems import made_up


@pytest.fixture(scope="module")
def c():
    return made_up()


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": True}, {"classes": False}, {"seeds": 1}, {"parameterization": "standard"}],
)
def test_saved_and_loaded_comparisons_are_equal(tmp_path, options):
    c = made_up(**options)
    path = c.save(tmp_path / "new" / "folder")
    for place in (path, path.parent):
        d = Comparison.load(place)
        assert d.measures.keys() == c.measures.keys()
        for name, values in c.measures.items():
            np.testing.assert_array_equal(d.measures[name], values)
            assert d.measures[name].dtype == values.dtype
        np.testing.assert_array_equal(d.times, c.times)
        for name in ("widths", "seeds", "steps", "settings", "tolerance", "confidence", "gaps"):
            assert getattr(d, name) == getattr(c, name)
        assert str(d) == str(c)
        assert repr(d) == repr(c)
    made_up(optimizer=True, seeds=2).save(tmp_path / "new" / "folder")  # over the first
    assert len(Comparison.load(path).seeds) == 2


def test_loading_nothing_or_saving_nowhere_is_explained(c, tmp_path):
    with pytest.raises(InputError, match="there is no comparison at"):
        Comparison.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        c.save(tmp_path / "file")


def test_the_dataset_has_named_axes_and_selects_by_them():
    c = made_up(optimizer=True)
    data = c.dataset
    assert data["gap"].dims == ("cause", "width", "seed", "step")
    assert data["accuracy"].dims == ("predictor", "width", "seed", "step")
    assert data["drift"].dims == ("width", "seed", "step")
    assert list(data["cause"].values) == [*c.gaps, "total"]
    assert list(data["predictor"].values)[-1] == "optimizer"
    np.testing.assert_array_equal(data["time"].values, c.times)
    chosen = data["gap"].sel(cause="feature learning", width=64, seed=2, step=10)
    assert float(chosen) == c.gap("feature learning")[1, 2, 1]
    for name in ("kernel flow", "optimizer"):
        np.testing.assert_array_equal(
            data["accuracy"].sel(predictor=name).values, c.measures[f"accuracy/{name}"]
        )


def test_gaps_are_answered_by_name(c):
    assert c.gaps == ("discretization", "finite-width kernel", "feature learning")
    np.testing.assert_array_equal(c.gap(), c.measures["gap/total"])
    with pytest.raises(InputError, match=r"no gap is called 'optimizer'; there are .*'total'"):
        c.gap("optimizer")


def test_steps_and_widths_that_are_not_there_are_named(c):
    for ask in (c.exponents, c.required_width, c.table, lambda s: c.dominant(64, s)):
        with pytest.raises(InputError, match=r"step 7 was not recorded; recorded are \(1, 10, 100"):
            ask(7)
    for ask in (c.predicts_until, lambda w: c.dominant(w, 10)):
        with pytest.raises(InputError, match=r"width 7 was not compared; compared are \(16, 64"):
            ask(7)


def with_total(c, means):
    """The same comparison with mean total gaps ``(widths, steps)``, hardly any spread."""
    spread = 1 + 1e-3 * np.array([-1.0, 0.0, 0.5, 0.5])
    total = np.asarray(means, float)[:, None, :] * spread[None, :, None]
    return dataclasses.replace(c, measures=c.measures | {"gap/total": total})


def test_predicts_until_is_the_end_of_the_first_unbroken_run(c):
    d = with_total(c, [[0.01, 0.01, 0.01], [0.01, 0.3, 0.01], [0.3, 0.01, 0.01]])
    assert [d.predicts_until(w) for w in d.widths] == [50.0, 0.5, 0.0]
    lines = d.conclusion().splitlines()
    assert lines[0] == "width 16: kernel regression predicts the whole run."
    assert lines[1] == "width 64: kernel regression predicts up to time 0.5."
    assert lines[2] == "width 256: kernel regression fails at the first recorded step."
    assert "For width 256 at the last step the verdict is 'predicts'" in lines[3]


def test_the_dominant_gap_is_the_largest_in_the_mean(c):
    assert c.dominant(16, 100) == "finite-width kernel"
    measures = dict(c.measures)
    measures["gap/feature learning"] = measures["gap/feature learning"].copy()
    measures["gap/feature learning"][0, 0, 2] = 9.0  # one seed alone
    assert dataclasses.replace(c, measures=measures).dominant(16, 100) == "feature learning"
    assert dataclasses.replace(c, measures=measures).dominant(16, 10) == "finite-width kernel"


def test_tables_hold_the_means_the_errors_and_the_verdicts(c):
    lines = c.table(10).splitlines()
    assert lines[0] == "step 10, time 5"
    assert re.split(r"  +", lines[1])[-3:] == ["total", "drift", "verdict"]
    for i, width in enumerate(c.widths):
        cells = re.split(r"  +", lines[2 + i])
        assert cells[0] == str(width)
        for cell, name in zip(cells[1:5], (*c.gaps, "total"), strict=True):
            mean, error = map(float, cell.split(" +- "))
            values = c.gap(name)[i, :, 1]
            assert mean == pytest.approx(values.mean(), abs=6e-5)
            assert error == pytest.approx(values.std(ddof=1) / 2, abs=6e-5)
        assert cells[-1] == verdict_text(c, width, 10)
    assert c.table() == c.table(100)


def test_verdicts_in_words_carry_the_bound_that_decides(c):
    d = with_total(c, [[0.3, 0.01, 0.01]] * 3)
    fails, predicts = d.verdicts[16, 1], d.verdicts[16, 10]
    assert verdict_text(d, 16, 1) == f"fails (> {fails.lower:.3f}, mainly finite-width kernel)"
    assert verdict_text(d, 16, 10) == f"predicts (< {predicts.upper:.3f})"
    measures = d.measures | {"gap/total": d.measures["gap/total"] * 0 + 0.1}
    measures["gap/total"][0, :, 0] = [0.05, 0.1, 0.12, 0.16]
    e = dataclasses.replace(d, measures=measures)
    n = e.verdicts[16, 1].more_seeds
    assert n > 1
    assert verdict_text(e, 16, 1) == f"undecided ({n} more seeds would decide)"
    assert "no feasible number of seeds" in verdict_text(e, 64, 1)
    assert "one seed has no error bar" in verdict_text(made_up(seeds=1), 16, 1)


def test_exponents_stand_beside_theory(c):
    e = c.exponents()
    assert list(e) == [*c.gaps, "total"]
    assert e["finite-width kernel"].value == pytest.approx(-0.5, abs=0.01)
    assert e["finite-width kernel"].theory == e["total"].theory == -0.5
    assert e["discretization"].theory == 0
    assert "theory says -0.5" in c.conclusion()


def test_theory_has_no_power_for_a_total_that_width_does_not_cure():
    with_optimizer = made_up(optimizer=True)
    assert with_optimizer.exponents()["total"].theory is None
    assert with_optimizer.exponents()["optimizer"].theory is None
    assert "theory gives no power" in with_optimizer.conclusion()
    noise = made_up(scale=1e-6)
    assert set(noise.exponents().values()) == {None}
    assert "width^" not in noise.conclusion()


def test_the_conclusion_names_cause_exponent_and_width(c):
    text, needed = c.conclusion(), c.required_width()
    assert "the largest gap is finite-width kernel" in text
    assert f"width^({c.exponents()['total'].value:+.2f})" in text
    # 0.3 (width / 16)^-0.5 and discretization reach 0.1 near here
    assert 120 < needed.lower < needed.value < needed.upper < 250
    assert f"{needed.value:.0f} (95% interval {needed.lower:.0f} to {needed.upper:.0f})" in text


def test_parameterizations_without_a_kernel_limit_never_get_there():
    c = made_up(parameterization="mean_field", scale=2)
    assert c.required_width().value == np.inf
    assert "never (this parameterization has no kernel limit" in c.conclusion()
    assert "theory says +0.0" in c.conclusion()
    # Within the tolerance at the largest width is not never, nor a promise for larger ones.
    within = made_up(parameterization="mean_field").conclusion()
    assert "unknown (the largest width measured is within it, but the limit is not a" in within


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((354.4, 275, 496, ""), "354 (95% interval 275 to 496)"),
        ((354.4, 275, np.inf, ""), "354 (95% interval 275 to unbounded)"),
        ((3e40, 1e9, np.inf, ""), "3.0e+40 (95% interval 1.0e+09 to unbounded)"),
        ((np.inf, 8, np.inf, "why"), "never (why)"),
        ((np.nan,) * 3 + ("why",), "unknown (why)"),
        ((16, 1, 16, "the gap is within it at every width"),
         "at most 16 (the gap is within it at every width measured)"),
    ],
)  # fmt: skip
def test_required_widths_in_words(numbers, text):
    assert required_width_text(RequiredWidth(*numbers), 0.95) == text


def test_the_full_text_has_heading_tables_exponents_and_conclusion(c):
    text = str(c)
    assert text.startswith("ntk parameterization, 4 seeds, 20 training and 10 test examples, 100")
    assert text.count("\nstep ") == 2
    assert c.table(1) in text
    assert c.table(100) in text
    assert text.endswith(c.conclusion())
    assert repr(c) == "Comparison(widths=(16, 64, 256), seeds=4, steps=100, parameterization='ntk')"
    measures = {name: values[:, :, -1:] for name, values in c.measures.items()}
    last = dataclasses.replace(c, measures=measures, steps=(100,), times=c.times[-1:])
    assert str(last).count("\nstep ") == 1
