"""Figures of what happens inside a network: its kernel, layers and neurons."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure

from ntk_lab import plot
from ntk_lab.empirical import Shares, kernel_evolution
from ntk_lab.empirical.prediction_shares import PredictionShares
from ntk_lab.errors import InputError
from ntk_lab.train import Curvature, LearningRatePhases, LossLine, LossPlane, phase_of

RNG = np.random.default_rng(0)


def axes():
    return Figure(figsize=(5.6, 4.2), layout="constrained").subplots()


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def title(ax):
    return ax.get_title(loc="left").replace("\n", " ")


def evolving(targets=True, times=(0, 1, 10, 100)):
    q = np.linalg.qr(RNG.normal(size=(10, 10)))[0]
    values = np.array([30.0, 9, 8, 1, 0.8, 0.7, 0.5, 0.4, 0.3, 0.2])
    y = q[:, 1] + 0.2 * RNG.normal(size=10)
    kernels = [q * values @ q.T + 0.3 * t**0.5 * np.outer(y, y) for t in times]
    return kernel_evolution(kernels, times=times, targets=y if targets else None)


def of_layers(target=True):
    trace = np.array([0.5, 0.3, 0.2])
    values = {f"{i}/w": np.full((2, 2), s / 4) for i, s in enumerate(trace)}
    return Shares(
        names=("0", "1", "2"),
        trace=trace,
        target=np.array([0.1, 0.2, 0.7]) if target else None,
        total_trace=1.0,
        total_target=1.0 if target else None,
        parameters=np.array([4, 4, 4]),
        trace_of=values,
        target_of=values if target else None,
    )


def of_prediction(points=0):
    one = np.ones((1, 2, 1))
    parts = np.concatenate([one * 0.9, -0.2 * one])
    rest, shares = 0.3 * one[0], np.array([0.9, -0.2])
    return PredictionShares(("a", "b"), parts, one[0], rest, shares, 0.3, 0.3, points)


def curved(hessian=True, steps=(0, 10, 20)):
    values = np.array([[10.0], [15.0], [18.0]])
    first = (values, 0.1 * values) if hessian else (None, None)
    return Curvature(steps, np.ones(3), *first, 0.9 * values, 0.01 * values)


def line(test=True):
    s = np.linspace(0, 1, 9)
    train = (1 - s) + 0.5 * np.sin(2 * np.pi * s)
    return LossLine(s, train, train + 0.1 if test else None)


def plane():
    a = np.linspace(-1, 1, 9)
    return LossPlane(a, a, a[None] ** 2 + 3 * a[:, None] ** 2, (None, None))


def phases():
    runs = {0.5: [1, 0.1], 3.0: [1, 9, 0.1], 6.0: [1, 9, np.inf], 3.5: [1, 9, 8]}
    final = {0.5: 0.5, 3.0: 1.2, 6.0: np.nan, 3.5: 3.0}
    found = [phase_of(runs[r], [r, final[r]], 1.0) for r in sorted(runs)]
    ratios = np.array(sorted(runs))
    curvature = np.array([[r, final[r]] for r in ratios])
    steps = np.array([0, 2])
    return LearningRatePhases(
        ratios, ratios, 1.0, np.ones((4, 3)), steps, curvature, None, tuple(found)
    )


DRAWN = {
    "evolution": lambda ax: plot.evolution(evolving(), ax),
    "evolution without targets": lambda ax: plot.evolution(evolving(False, (0, 1)), ax),
    "eigenvalues": lambda ax: plot.eigenvalues(evolving(), ax),
    "shares": lambda ax: plot.shares(of_layers(), ax),
    "shares without targets": lambda ax: plot.shares(of_layers(False), ax),
    "prediction": lambda ax: plot.shares(of_prediction(), ax),
    "curvature": lambda ax: plot.curvature(curved(), ax, 0.1),
    "curvature of the kernel": lambda ax: plot.curvature(curved(hessian=False), ax),
    "line": lambda ax: plot.loss_line(line(), ax),
    "line without test": lambda ax: plot.loss_line(line(False), ax),
    "plane": lambda ax: plot.loss_plane(plane(), ax),
    "phases": lambda ax: plot.learning_rate_phases(phases(), ax),
    "neurons": lambda ax: plot.neurons(RNG.exponential(size=50), ax),
}


def check_words(ax):
    """Every axis and the legend say what they show, and no text lies on another."""
    figure = ax.get_figure()
    figure.draw_without_rendering()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert ax.get_title(loc="left")
    assert labels(ax)
    ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    texts = [ax.xaxis.label, ax.yaxis.label, ax._left_title, *ax.get_legend().get_texts()]
    shown = [t for t in (*texts, *ticks) if t.get_text() and t.get_visible()]
    boxes = [(t.get_text(), t.get_window_extent().padded(-1)) for t in shown]
    assert not [(a, b) for (a, p), (b, q) in combinations(boxes, 2) if p.overlaps(q)]


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_every_figure_is_labelled_and_returns_what_it_drew(draw):
    ax = axes()
    artists = draw(ax)
    assert artists
    assert all(a in ax.get_children() for a in artists if hasattr(a, "axes"))
    check_words(ax)


def test_evolution_shows_its_arrays_and_says_where_the_kernel_goes():
    e, ax = evolving(), axes()
    lines = plot.evolution(e, ax)
    for line, values in zip(lines, (e.drift, e.cka[0], e.overlap[0], e.alignment), strict=False):
        np.testing.assert_array_equal(line.get_ydata(), values)
        np.testing.assert_array_equal(line.get_xdata(), e.times)
    assert ax.get_xscale() == "symlog"
    assert "towards the targets" in title(ax)
    assert f"{e.drift[-1]:.0%}" in title(ax)


def test_labels_of_times_are_apart_where_the_first_is_late():
    ax = axes()
    plot.evolution(evolving(times=(0, 5, 20, 500)), ax)
    ax.figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.get_xticklabels() if t.get_text()]
    assert len(boxes) == 3  # 0, 10 and 100
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]


def test_a_kernel_that_grows_many_times_is_said_to():
    ax = axes()
    plot.evolution(kernel_evolution([np.eye(4), 9 * np.eye(4)], times=(0, 1)), ax)
    assert "moves by 8 times itself" in title(ax)


def test_eigenvalues_that_are_followed_are_set_apart():
    e, ax = evolving(), axes()
    lines = plot.eigenvalues(e, ax, top=6)
    assert len(lines) == 6
    np.testing.assert_array_equal(lines[2].get_ydata(), e.eigenvalues[:, 2])
    assert labels(ax) == [f"top {e.k}", "next"]
    assert lines[0].get_color() != lines[e.k].get_color()


def test_shares_are_bars_and_the_title_names_the_largest():
    ax = axes()
    bars = plot.shares(of_layers(), ax)
    np.testing.assert_allclose([b.get_width() for b in bars[2]], [0.1, 0.2, 0.7])
    assert title(ax) == "2 carries 70% of the kernel in the target direction"
    plot.shares(of_prediction(), ax := axes())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "nonlinear rest"]
    assert title(ax) == "a carries 90% of the change of predictions"
    plot.shares(of_prediction(3), ax := axes())
    assert ax.get_yticklabels()[-1].get_text() == "quadrature"


def test_neurons_are_counted_to_one_half():
    ax = axes()
    curve, _ = plot.neurons([0.0, 3.0, 1.0, 0.0], ax)
    np.testing.assert_allclose(curve.get_ydata(), [0, 0.75, 1, 1, 1])
    assert title(ax) == "1 of 4 neurons carries half of the layer's share"
    with pytest.raises(InputError, match="none negative"):
        plot.neurons([-1.0, 2.0], axes())


def test_curvature_has_the_limit_of_the_learning_rate():
    ax = axes()
    *_, limit = plot.curvature(curved(), ax, 0.1)
    assert limit.get_ydata()[0] == 20
    assert "from 0.5 to 0.9 of what the learning rate allows" in title(ax)
    with pytest.raises(InputError, match="numbers are needed"):
        plot.curvature(curved(steps=("start", "middle", "end")), axes())


def test_a_line_names_its_barrier():
    ax = axes()
    train, test, chord = plot.loss_line(line(), ax)
    np.testing.assert_array_equal(train.get_ydata(), line().train)
    np.testing.assert_array_equal(test.get_ydata(), line().test)
    np.testing.assert_allclose(chord.get_ydata(), [1, 0], atol=1e-12)
    assert "A barrier of 0.5" in title(ax)
    falls = LossLine(np.array([0.0, 0.5, 1]), np.array([3.0, 2, 1]), None)
    plot.loss_line(falls, ax := axes())
    assert title(ax) == "The training loss only falls along the straight line"


def test_phases_have_a_colour_each():
    ax = axes()
    points = plot.learning_rate_phases(phases(), ax)
    assert labels(ax) == ["lazy", "catapult", "divergent", "undecided", "unchanged", "limit"]
    assert len({p.get_color() for p in points[:4]}) == 4
    np.testing.assert_allclose(points[1].get_ydata(), [1.2])
    assert "Lazy up to 0.5, training up to 3" in title(ax)
