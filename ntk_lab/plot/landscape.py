"""The landscape that a network trains in: curvature, lines, planes, phases of learning rates."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.plot.style import CAUSES, GUIDE, finish, marker, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.train import Curvature, LearningRatePhases, LossLine, LossPlane

PHASES = {"lazy": "#009E73", "catapult": "#E69F00", "divergent": "#D55E00", "undecided": "#BBBBBB"}
_TRAIN, _TEST = CAUSES["finite-width kernel"], CAUSES["optimizer"]


def curvature(c: "Curvature", ax: "Axes", learning_rate: float | None = None) -> list[Any]:
    """Sharpness and top NTK eigenvalue along training, beside the limit ``2 / learning rate``.

    Parameters
    ----------
    c
        From :func:`ntk_lab.train.curvature_along`, with numbers as steps.
    ax
        Axes to draw into.
    learning_rate
        Of the run, for the limit of stability.

    Returns
    -------
    list of Artist
        A line with error bars for each kind of eigenvalue, then the limit. Bars are residual
        norms.

    Raises
    ------
    InputError
        Steps that are not numbers.
    """
    if not all(isinstance(s, (int, float, np.integer, np.floating)) for s in c.steps):
        raise InputError(f"the steps are {c.steps}; numbers are needed for an axis.")
    matplotlib()
    kinds = (
        ("largest Hessian eigenvalue", c.hessian, c.hessian_error, CAUSES["feature learning"]),
        ("largest NTK eigenvalue / n", c.ntk, c.ntk_error, CAUSES["finite-width kernel"]),
    )
    artists = []
    for i, (label, values, error, colour) in enumerate(kinds):
        if values is not None and error is not None:
            look = {"color": colour, "marker": marker(i), "markersize": 3, "capsize": 2}
            bars = ax.errorbar(c.steps, values[:, 0], error[:, 0], label=label, **look)
            artists.append(bars)
    title = "Curvature of the loss"
    if learning_rate is not None:
        limit = 2 / learning_rate
        artists.append(ax.axhline(limit, color=GUIDE, linestyle="--", label="2 / learning rate"))
        top = c.ntk if c.hessian is None else c.hessian
        assert top is not None  # one of them is computed
        title = f"The curvature goes from {top[0, 0] / limit:.2g} to {top[-1, 0] / limit:.2g} of "
        title += "what the learning rate allows"
    ax.set_ylim(bottom=0)
    ax.set_xlabel("step")
    ax.set_ylabel("curvature of the training loss")
    finish(ax, title, columns=2)
    return artists


def loss_line(line: "LossLine", ax: "Axes") -> list[Any]:
    """The loss along a straight line, with the chord that a barrier is measured from.

    Parameters
    ----------
    line
        From :func:`ntk_lab.train.loss_along_line`.
    ax
        Axes to draw into.

    Returns
    -------
    list of Artist
        A curve for training and, if there is, test loss, then the chord of the training loss.
    """
    matplotlib()
    artists = []
    curves = [("training loss", line.train, _TRAIN), ("test loss", line.test, _TEST)]
    for i, (label, values, colour) in enumerate(curves):
        if values is not None:
            look = {"color": colour, "marker": marker(i), "markersize": 3, "linewidth": 1.6}
            artists += ax.plot(line.positions, values, label=label, **look)
    ends = np.interp([0.0, 1.0], line.positions, line.train)
    artists += ax.plot([0, 1], ends, color=GUIDE, linestyle=":", label="chord")
    ax.set_xlabel("position between start (0) and end (1)")
    ax.set_ylabel("loss")
    barrier, rise = line.barrier(), line.rise()
    if not rise:
        title = "The training loss only falls along the straight line"
    elif barrier > 0:
        title = f"A barrier of {barrier:.2g} on the straight line; the loss climbs by {rise:.2g}"
    else:
        title = f"No barrier above the chord; the loss climbs by {rise:.2g} on the way"
    finish(ax, title, columns=3)
    return artists


def loss_plane(plane: "LossPlane", ax: "Axes") -> list[Any]:
    """Contours of the loss on a plane through the parameters.

    Parameters
    ----------
    plane
        From :func:`ntk_lab.train.loss_plane`.
    ax
        Axes to draw into.

    Returns
    -------
    list of Artist
        The contours, and a cross at the parameters.
    """
    matplotlib()
    values = np.where(np.isfinite(plane.loss), plane.loss, np.nan)
    contours = ax.contour(plane.a, plane.b, values, levels=12, cmap="viridis")
    ax.clabel(contours, fontsize=7)
    cross = ax.plot(0, 0, "x", color="black", linestyle="", label="the parameters")
    ax.set_xlabel("first direction")
    ax.set_ylabel("second direction")
    low, high = np.nanmin(values), np.nanmax(values)
    finish(ax, f"Loss on a plane through the parameters, from {low:.2g} to {high:.2g}")
    return [contours, *cross]


def learning_rate_phases(p: "LearningRatePhases", ax: "Axes") -> list[Any]:
    """Where training is lazy, catapults and diverges: curvature at the end against at the start.

    Parameters
    ----------
    p
        From :func:`ntk_lab.train.learning_rate_phases`.
    ax
        Axes to draw into.

    Returns
    -------
    list of Artist
        The points of each phase that occurs, the line of a curvature that has not changed, and the
        limit of stability. Runs that diverge stand at the curvature that was last finite.
    """
    matplotlib()
    names = np.array([phase.name for phase in p.phases])
    final = np.array([phase.final for phase in p.phases])
    highest = 1.5 * max(2.0, float(p.ratios.max()))
    artists = []
    for i, (name, colour) in enumerate(PHASES.items()):
        which = names == name
        if which.any():
            look = {"color": colour, "marker": marker(i), "linestyle": "", "markersize": 6}
            shown = np.minimum(final[which], highest)
            artists += ax.plot(p.ratios[which], shown, label=name, **look)
    across = np.array([p.ratios.min(), p.ratios.max()])
    artists += ax.plot(across, across, color=GUIDE, linestyle=":", label="unchanged")
    artists.append(ax.axhline(2, color=GUIDE, linestyle="--", linewidth=1.0, label="limit"))
    ax.set_ylim(0, 1.05 * highest)
    ax.set_xlabel("learning rate × curvature at the start")
    ax.set_ylabel("learning rate × curvature at the end")
    lazy, trains = p.lazy_until, p.trains_until
    title = f"Lazy up to {lazy[0]:.3g}, training up to {trains[0]:.3g} times 1 / curvature"
    finish(ax, title, columns=3)
    return artists
