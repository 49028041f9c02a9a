"""The verdict by width and time."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ntk_lab.plot.style import STATUSES, TIME, finish, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.compare import Comparison

_MOST_NUMBERED_COLUMNS = 20
_TICKS = 6


def verdict(c: "Comparison", ax: "Axes") -> list[Any]:
    """A map of width by time: predicts, undecided or fails, with the mean total gap in each cell.

    Parameters
    ----------
    c
        The comparison.
    ax
        Axes to draw into.

    Returns
    -------
    list of Artist
        The coloured mesh, then the numbers, row by row from the smallest width (none where there
        are too many times to read them).
    """
    mpl = matplotlib()
    names = list(STATUSES)
    codes = np.asarray(
        [[names.index(c.verdicts[w, s].status) for s in c.steps] for w in c.widths], float
    )
    colours = mpl.colors.ListedColormap(list(STATUSES.values()))
    mesh = ax.pcolormesh(
        codes, cmap=colours, vmin=-0.5, vmax=2.5, alpha=0.6, edgecolors="white", linewidth=1.5
    )
    artists: list[Any] = [mesh]
    if len(c.steps) <= _MOST_NUMBERED_COLUMNS:
        for i, width in enumerate(c.widths):
            for j, step in enumerate(c.steps):
                text = short_number(c.verdicts[width, step].mean)
                artists.append(
                    ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=7)
                )
    _axes(c, ax)
    handles = [
        mpl.patches.Patch(facecolor=colour, alpha=0.6, label=_MEANING[name])
        for name, colour in STATUSES.items()
    ]
    finish(ax, _title(c), handles=handles)
    ax.grid(visible=False)
    return artists


_MEANING = {
    "predicts": "predicts: total gap below the tolerance",
    "undecided": "undecided: more seeds needed",
    "fails": "fails: total gap above the tolerance",
}


def short_number(gap: float) -> str:
    """Two digits that fit a cell: ``.04``, ``.39``, ``1.2``, ``12``."""
    if gap < 0.995:
        return f"{gap:.2f}".removeprefix("0")
    return f"{gap:.1f}" if gap < 9.95 else f"{gap:.0f}"


def _axes(c: "Comparison", ax: "Axes") -> None:
    columns = len(c.steps)
    ticks = np.unique(np.linspace(0, columns - 1, min(_TICKS, columns)).round().astype(int))
    ax.set_xticks(ticks + 0.5, [f"{c.times[j]:.2g}" for j in ticks])
    ax.set_yticks(np.arange(len(c.widths)) + 0.5, [row_label(c, w) for w in c.widths])
    ax.tick_params(length=0)
    ax.set_xlabel(TIME)
    ax.set_ylabel("" if c.theory is None else "width")


def row_label(c: "Comparison", width: int) -> str:
    """Label of a network's row: its width, if it has one."""
    return c.name(width).removeprefix("width ")


def _title(c: "Comparison") -> str:
    statuses = [v.status for v in c.verdicts.values()]
    for status, text in (
        ("predicts", "Kernel regression predicts every {}time"),
        ("fails", "Kernel regression fails at every {}time"),
        ("undecided", "No {}time is decided: more seeds are needed"),
    ):
        if all(s == status for s in statuses):
            return text.format("" if c.theory is None else "width and ")
    at_end: dict[str, list[str]] = {name: [] for name in STATUSES}
    for width in c.widths:
        at_end[c.verdicts[width, c.steps[-1]].status].append(row_label(c, width))
    words = {"predicts": "predicts", "undecided": "is undecided at", "fails": "fails at"}
    what = "" if c.theory is None else "width "
    parts = [f"{words[s]} {what}{', '.join(w)}" for s, w in at_end.items() if w]
    return f"At the end kernel regression {'; '.join(parts)}"
