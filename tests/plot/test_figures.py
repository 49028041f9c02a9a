import sys
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ntk_lab import plot
from ntk_lab.errors import InputError
from ntk_lab.plot import style
from tests.plot.samples import comparison

ALL = (plot.accuracy, plot.budget, plot.drift, plot.motion, plot.scaling, plot.verdict)
SHAPES = {
    "usual": {},
    "one width": {"widths": (16,)},
    "one seed": {"seeds": 1},
    "one of all": {"widths": (16,), "seeds": 1, "steps": (4,)},
    "five widths and an optimizer": {"widths": (8, 16, 32, 64, 128), "optimizer": True},
    "regression": {"classes": False},
    "no kernel limit": {"name": "mean_field"},
    "large gaps": {"size": 5.0},
}


def axes():
    return Figure(layout="constrained").subplots()


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_figure_of_every_comparison_is_labelled_and_no_text_overlaps(shape):
    figure = comparison(**shape).plot()
    figure.draw_without_rendering()
    assert len(figure.axes) == 6
    for ax in figure.axes:
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.get_title(loc="left")
        assert labels(ax)
        ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
        texts = [ax.xaxis.label, ax.yaxis.label, ax._left_title, *ax.get_legend().get_texts()]
        shown = [t for t in (*texts, *ticks) if t.get_text() and t.get_visible()]
        boxes = [(t.get_text(), t.get_window_extent().padded(-1)) for t in shown]
        assert not [(a, b) for (a, p), (b, q) in combinations(boxes, 2) if p.overlaps(q)]


@pytest.mark.parametrize("draw", ALL, ids=lambda f: f.__name__)
def test_what_was_drawn_is_returned_and_lives_in_the_axes(draw):
    ax = axes()
    artists = draw(comparison(), ax)
    assert artists
    assert all(a in ax.get_children() for a in artists if hasattr(a, "axes"))


def test_budget_has_a_line_and_a_band_for_each_gap_and_the_tolerance():
    c, ax = comparison(optimizer=True), axes()
    *curves, tolerance = plot.budget(c, ax, 8)
    causes = (*c.gaps, "total")
    assert labels(ax) == [*causes, "tolerance"]
    assert len(curves) == 2 * len(causes)
    for cause, line, band in zip(causes, curves[::2], curves[1::2], strict=True):
        gaps = c.gap(cause)[0]
        np.testing.assert_allclose(line.get_xdata(), c.times)
        np.testing.assert_allclose(line.get_ydata(), gaps.mean(0))
        assert to_hex(line.get_color()) == style.CAUSES[cause].lower()
        highest = gaps.mean(0) + gaps.std(0, ddof=1) / len(gaps) ** 0.5
        assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(highest.max())
    assert tolerance.get_ydata()[0] == c.tolerance
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "time = learning rate × steps"
    assert ax.get_title(loc="left").startswith("Width 8:")


def test_the_largest_width_is_shown_unless_another_is_asked_for():
    c = comparison()
    line = plot.budget(c, axes())[0]
    np.testing.assert_allclose(line.get_ydata(), c.gap("discretization")[-1].mean(0))
    for draw in (plot.budget, plot.accuracy):
        with pytest.raises(InputError, match=r"width 7 was not compared; compared are \(8, 16\)"):
            draw(c, axes(), 7)


def test_scaling_shows_points_fits_and_theory_with_the_exponent_in_the_legend():
    c, ax = comparison(widths=(8, 16, 32)), axes()
    plot.scaling(c, ax, 3)
    exponent = c.exponents(3)["feature learning"].value
    assert f"feature learning: width^{style.signed(exponent)}" in labels(ax)
    assert labels(ax)[-2:] == ["tolerance", "theory's slope"]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    fitted = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata())]
    slopes = [np.polyfit(np.log(f.get_xdata()), np.log(f.get_ydata()), 1)[0] for f in fitted]
    expected = [e.value for e in c.exponents(3).values()]
    np.testing.assert_allclose(slopes, expected)
    assert "theory says" in ax.get_title(loc="left")
    with pytest.raises(InputError, match="step 2 was not recorded"):
        plot.scaling(c, axes(), 2)


def test_the_verdict_map_colours_and_numbers_every_cell():
    c, ax = comparison(widths=(8, 512)), axes()
    mesh, *numbers = plot.verdict(c, ax)
    statuses = [v.status for v in c.verdicts.values()]
    assert {*statuses} == {"predicts", "fails"}
    np.testing.assert_array_equal(
        mesh.get_array().ravel(), [list(style.STATUSES).index(s) for s in statuses]
    )
    means = [v.mean for v in c.verdicts.values()]
    np.testing.assert_allclose([float(t.get_text()) for t in numbers], means, atol=0.006)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["8", "512"]
    title = ax.get_title(loc="left").replace("\n", " ")
    assert title == "At the end kernel regression predicts width 512; fails at width 8"


def test_too_many_times_are_coloured_but_not_numbered():
    assert len(plot.verdict(comparison(steps=tuple(range(1, 40))), axes())) == 1


def test_drift_has_a_line_a_width_and_says_how_far():
    c, ax = comparison(widths=(8, 16, 32)), axes()
    artists = plot.drift(c, ax)
    assert len(artists) == 6
    assert labels(ax) == ["width 8", "width 16", "width 32"]
    assert f"{c.measures['drift'][0, :, -1].mean():.0%}" in ax.get_title(loc="left")
    assert len({line.get_marker() for line in artists[::2]}) == 3


def test_accuracy_becomes_loss_for_regression():
    ax = axes()
    plot.accuracy(comparison(), ax)
    assert ax.get_ylabel() == "test accuracy"
    plot.accuracy(comparison(classes=False), ax := axes())
    assert "loss" in ax.get_ylabel()
    assert "loss" in ax.get_title(loc="left")


def test_nothing_global_changes():
    before = dict(matplotlib.rcParams)
    pyplot = sys.modules.get("matplotlib.pyplot")
    open_before = pyplot.get_fignums() if pyplot else []
    figure = comparison().plot()
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert (pyplot.get_fignums() if pyplot else []) == open_before
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_causes_and_statuses_never_share_a_colour():
    colours = [*style.CAUSES.values(), *style.STATUSES.values()]
    assert len(set(colours)) == len(colours)


def test_matplotlib_is_asked_for_by_name_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'ntk_lab\[report\]'"):
        plot.overview(comparison())
