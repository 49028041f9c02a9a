"""A map over two settings: where kernel regression predicts, and where it fails."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ntk_lab.plot.style import STATUSES, finish, matplotlib
from ntk_lab.plot.verdict import short_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.compare import PhaseDiagram

_COLOURS = STATUSES | {"diverges": "#7A1F5C", "not run": "#FFFFFF"}
_LABELS = {
    "width": "width",
    "depth": "depth (hidden layers)",
    "learning_rate": "learning rate",
    "alpha": r"output scale $\alpha$",
    "parameterization": "parameterization",
    "train_size": "training examples",
    "label_noise": "label noise",
}


def phase(d: "PhaseDiagram", ax: "Axes") -> list[Any]:
    """Verdict of each cell as a colour, its mean total gap, and the boundary at the tolerance.

    Parameters
    ----------
    d
        What ``ntk.phase_diagram`` returned.
    ax
        Axes to draw into.

    Returns
    -------
    list of Artist
        The coloured mesh, the numbers, and the contour where the gap, interpolated in its
        logarithm, equals the tolerance (left out where no neighbouring cells lie on both sides).
    """
    mpl = matplotlib()
    names = list(_COLOURS)
    colours = mpl.colors.ListedColormap(list(_COLOURS.values()))
    mesh = ax.pcolormesh(
        np.asarray(d.status, float), cmap=colours, vmin=-0.5, vmax=len(names) - 0.5, alpha=0.6,
        edgecolors="white", linewidth=1.5,
    )  # fmt: skip
    artists: list[Any] = [mesh]
    for (i, j), gap in np.ndenumerate(d.gap):
        if np.isfinite(gap):
            text = short_number(float(gap))
            artists.append(ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=8))
    boundary = _boundary(d, ax)
    artists += boundary
    for axis, (name, values) in ((ax.xaxis, d.x), (ax.yaxis, d.y)):
        texts = [v if isinstance(v, str) else f"{v:g}" for v in values]
        axis.set_ticks(np.arange(len(values)) + 0.5, texts)
        axis.set_label_text(_LABELS[name])
    ax.tick_params(length=0)
    handles: list[Any] = [
        mpl.patches.Patch(facecolor=_COLOURS[n], alpha=0.6, label=n, edgecolor="#999999")
        for n in names
        if (d.names() == n).any()
    ]
    if boundary:
        label = f"mean gap {d.tolerance:g}, the tolerance"
        handles.append(mpl.lines.Line2D([], [], color="black", linewidth=2, label=label))
    finish(ax, _title(d), columns=3, handles=handles)
    ax.grid(visible=False)
    return artists


def _boundary(d: "PhaseDiagram", ax: "Axes") -> list[Any]:
    finite = np.isfinite(d.gap)
    if min(d.gap.shape) < 2 or not finite.any():
        return []
    level = np.log(np.where(finite, np.maximum(d.gap, 1e-12), np.nan) / d.tolerance)
    if not (np.nanmin(level) < 0 < np.nanmax(level)):
        return []
    columns, rows = (np.arange(n) + 0.5 for n in d.gap.shape[::-1])
    masked = np.ma.masked_invalid(level)
    return [ax.contour(columns, rows, masked, levels=[0.0], colors="black", linewidths=2)]


def _title(d: "PhaseDiagram") -> str:
    names = d.names()
    share = (names == "predicts").mean()
    what = f"{_LABELS[d.x[0]]} and {_LABELS[d.y[0]]}"
    if share == 1:
        return f"Kernel regression predicts training at every {what}"
    if share == 0:
        return f"Kernel regression predicts training at no {what}"
    return f"Kernel regression predicts {share:.0%} of this map of {what}"
