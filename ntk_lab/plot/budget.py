"""The error budget over time at one width."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ntk_lab.plot.style import CAUSES, GAP, GUIDE, curve, finish, matplotlib, time_axis, width_index

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.compare import Comparison

_LOG_ABOVE = 8


def budget(c: "Comparison", ax: "Axes", width: int | None = None) -> list[Any]:
    """Each gap of the error budget against time, with bands of one standard error.

    Parameters
    ----------
    c
        The comparison.
    ax
        Axes to draw into.
    width
        One of ``c.widths``; default the largest.

    Returns
    -------
    list of Artist
        A line and a band for each gap and for the total, then the line of the tolerance.

    Raises
    ------
    InputError
        A width that was not compared.
    """
    matplotlib()
    i = width_index(c, width)
    artists = []
    for name in (*c.gaps, "total"):
        look = {"linewidth": 2.4, "zorder": 3} if name == "total" else {}
        artists += curve(ax, c.times, c.gap(name)[i], color=CAUSES[name], label=name, **look)
    artists.append(
        ax.axhline(c.tolerance, color=GUIDE, linestyle="--", linewidth=1.2, label="tolerance")
    )
    time_axis(ax, c.times)
    _gap_axis(ax, [c.gap(g)[i].mean(axis=0) for g in (*c.gaps, "total")], c.tolerance)
    ax.set_ylabel(GAP)
    finish(ax, _title(c, i), columns=2)
    return artists


def _gap_axis(ax: "Axes", means: list[np.ndarray], tolerance: float) -> None:
    """From zero up; logarithmic where a gap is so large that the tolerance would not be seen."""
    top = max(float(mean.max()) for mean in means)
    if top > _LOG_ABOVE * tolerance:
        ax.set_yscale("log")
        ax.set_ylim(tolerance / 100, 1.5 * top)
    else:
        ax.set_ylim(0, 1.15 * max(top, tolerance))


def _title(c: "Comparison", i: int) -> str:
    width, last = c.widths[i], c.steps[-1]
    total = float(np.mean(c.gap()[i, :, -1]))
    return (
        f"{c.name(width).capitalize()}: kernel theory is off by {total:.2g} at the end; "
        f"main cause: {c.dominant(width, last)}"
    )
