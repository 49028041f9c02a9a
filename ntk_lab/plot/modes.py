"""Spectral bias: which eigenmodes are learnt by when."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.plot.style import GUIDE, finish, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.predict import LearntModes


def learnt_modes(found: "LearntModes", times: Any, ax: "Axes", unit: str = "time") -> list[Any]:
    """Share learnt of each eigenmode, fastest first, at each of a few times.

    Parameters
    ----------
    found
        What `ntk_lab.predict.learnt_modes` returned for an array of times.
    times
        The times (or numbers of steps) it was asked for, shape ``(T,)``.
    ax
        Axes to draw into.
    unit
        What ``times`` counts: "time" or "steps".

    Returns
    -------
    list of Artist
        A curve for each time, then the power of the target in all modes up to each.

    Raises
    ------
    InputError
        Times that are not those of the shares.
    """
    share, times = np.asarray(found.share, float), np.asarray(times, float)
    if times.ndim != 1 or share.shape[:-1] != times.shape or not times.size:
        raise InputError(
            f"shares have axes {share.shape[:-1]} of times, and {times.shape} are given; ask "
            "learnt_modes for the same one-dimensional array of times."
        )
    number = np.arange(1, share.shape[1] + 1)
    shades = np.linspace(0.0, 0.85, len(times))
    artists: list[Any] = []
    for shade, t, row in zip(shades, times, share, strict=True):
        colour = matplotlib().colormaps["viridis"](shade)
        label = f"{unit} {t:.3g}"
        artists += ax.plot(number, row, color=colour, linewidth=1.6, label=label)
    power = np.cumsum(np.asarray(found.power, float))
    artists += ax.plot(
        number, power, color=GUIDE, linestyle=":", linewidth=1.6, label="target within the modes"
    )
    ax.set_xscale("log")
    ax.set_xlim(0.9, number[-1] * 1.1)
    ax.set_ylim(min(-0.02, share.min() - 0.02), max(1.05, share.max() + 0.05))
    ax.set_xlabel("eigenmode of the kernel, largest eigenvalue first")
    ax.set_ylabel("share learnt")
    count = int((share[-1] > 0.5).sum())
    modes = "eigenmode is" if count == 1 else "eigenmodes are"
    finish(
        ax,
        f"{count} of {number[-1]} {modes} more than half learnt at {unit} {times[-1]:.3g}",
        columns=2,
    )
    return artists
