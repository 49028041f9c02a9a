"""Curvature along training, beside the limit of stability."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ntk_lab.plot.style import (
    CAUSES,
    GUIDE,
    curve,
    finish,
    marker,
    matplotlib,
    time_axis,
    width_index,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.compare import Comparison

_CURVES = {
    "sharpness/of the loss": ("Hessian of the loss", CAUSES["feature learning"]),
    "sharpness/of the kernel": ("NTK over examples", CAUSES["finite-width kernel"]),
}


def sharpness(c: "Comparison", ax: "Axes", width: int | None = None) -> list[Any]:
    """Largest eigenvalues of the Hessian and of the NTK over time, with ``2 / learning_rate``.

    Parameters
    ----------
    c
        A comparison made with ``sharpness=True``.
    ax
        Axes to draw into.
    width
        One of ``c.widths``; default the largest.

    Returns
    -------
    list of Artist
        A line and a band of one standard error for each, and the limit where the run is plain
        gradient descent.

    Raises
    ------
    InputError
        A width that was not compared.
    """
    matplotlib()
    i = width_index(c, width)
    artists = []
    for k, (name, (label, colour)) in enumerate(_CURVES.items()):
        look = {"color": colour, "label": label, "marker": marker(k)}
        artists += curve(ax, c.times, c.measures[name][i], **look)
    if not c.settings["optimizer"]:
        limit = 2 / c.settings["learning_rate_of_width"][i]
        artists.append(ax.axhline(limit, color=GUIDE, linestyle="--", label="2 / learning rate"))
    ax.set_yscale("log")
    time_axis(ax, c.times)
    ax.set_ylabel("largest eigenvalue")
    values = c.measures["sharpness/of the loss"][i].mean(axis=0)
    trend = "rises" if values[-1] > values[0] else "falls"
    numbers = " to ".join(f"{v:.3g}" for v in np.asarray([values[0], values[-1]]))
    finish(ax, f"Sharpness of {c.name(c.widths[i])} {trend} from {numbers}")
    return artists
