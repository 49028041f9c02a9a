"""Figures of calibration and of spectral bias."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from ntk_lab import plot
from ntk_lab.errors import InputError
from ntk_lab.predict import Moments, calibration, gradient_flow, learnt_modes


def axes():
    return Figure(layout="constrained").subplots()


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("factor", "words"), [(1.0, "hold what they promise"), (0.2, "too narrow"), (9.0, "too wide")]
)
def test_calibration_shows_coverage_and_says_what_it_means(factor, words):
    y = np.random.default_rng(0).normal(size=(500, 1))
    found = calibration(Moments(0 * y, factor * np.eye(500)), y)
    ax = axes()
    curve, diagonal, band = plot.calibration(found, ax, "posterior")
    np.testing.assert_allclose(curve.get_ydata(), found.coverage.value)
    np.testing.assert_allclose(curve.get_xdata(), found.levels)
    np.testing.assert_allclose(diagonal.get_xdata(), diagonal.get_ydata())
    assert words in ax.get_title(loc="left").replace("\n", " ")
    assert legend(ax)[0].startswith("posterior: log score \N{MINUS SIGN}")
    assert band in ax.get_children()
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_learnt_modes_has_a_curve_for_each_time_and_one_for_the_target():
    values = np.geomspace(1, 1e-4, 30)
    flow = gradient_flow(np.diag(values), np.ones((30, 1)))
    times = [30.0, 3000.0]
    found = learnt_modes(flow, times)
    ax = axes()
    *curves, target = plot.learnt_modes(found, times, ax)
    for curve, share in zip(curves, found.share, strict=True):
        np.testing.assert_allclose(curve.get_ydata(), share)
    np.testing.assert_allclose(target.get_ydata(), np.arange(1, 31) / 30, rtol=1e-6)
    assert legend(ax) == ["time 30", "time 3e+03", "target within the modes"]
    count = int((np.asarray(found.share[1]) > 0.5).sum())
    assert ax.get_title(loc="left").replace("\n", " ").startswith(f"{count} of 30 eigenmodes are")
    with pytest.raises(InputError, match="the same one-dimensional array"):
        plot.learnt_modes(found, [30.0], axes())
