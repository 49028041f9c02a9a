"""How a kernel evolves: how far it moves and turns, and what becomes of its eigenvalues."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ntk_lab.plot.style import CAUSES, GUIDE, finish, marker, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.empirical import Evolution

_COLOURS = tuple(CAUSES.values())


def evolution(e: "Evolution", ax: "Axes") -> list[Any]:
    """Drift, alignment and rotation of a kernel over time.

    Parameters
    ----------
    e
        From :func:`ntk_lab.empirical.kernel_evolution`.
    ax
        Axes to draw into.

    Returns
    -------
    list of Artist
        A line for each of drift, alignment with the kernel at the start (CKA), overlap of the top
        eigenvectors with those at the start and, with targets, alignment with them; last, the
        overlap of random eigenvectors, dotted.
    """
    matplotlib()
    curves = {
        "drift": e.drift,
        "CKA with the start": e.cka[0],
        f"overlap of the top {e.k} eigenvectors": e.overlap[0],
    }
    if e.alignment is not None:
        curves["alignment with targets"] = e.alignment
    artists = []
    for i, (label, values) in enumerate(curves.items()):
        look = {"color": _COLOURS[i], "marker": marker(i), "markersize": 3, "linewidth": 1.6}
        artists += ax.plot(e.times, values, label=label, **look)
    chance = ax.axhline(
        e.chance, color=GUIDE, linestyle=":", linewidth=1.0, label="overlap, random"
    )
    _time(ax, e.times)
    ax.set_ylim(bottom=min(0.0, float(np.nanmin(np.stack(list(curves.values()))))))
    ax.set_ylabel("share of one")
    finish(ax, _moved(e), columns=2)
    return [*artists, chance]


def eigenvalues(e: "Evolution", ax: "Axes", top: int | None = None) -> list[Any]:
    """The largest eigenvalues of a kernel over time, those that are followed in colour.

    Parameters
    ----------
    e
        From :func:`ntk_lab.empirical.kernel_evolution`.
    ax
        Axes to draw into.
    top
        How many; default three times as many as are followed.

    Returns
    -------
    list of Artist
        A line for each eigenvalue, largest first.
    """
    matplotlib()
    top = min(3 * e.k if top is None else top, e.eigenvalues.shape[1])
    values = np.where(e.eigenvalues > 0, e.eigenvalues, np.nan)
    artists = []
    for i in range(top):
        followed = i < e.k
        label = {0: f"top {e.k}", e.k: "next"}.get(i)
        colour = CAUSES["finite-width kernel"] if followed else GUIDE
        width = 1.6 if followed else 0.8
        artists += ax.plot(e.times, values[:, i], color=colour, linewidth=width, label=label)
    ax.set_yscale("log")
    _time(ax, e.times)
    ax.set_ylabel("eigenvalue of the kernel")
    rank = f"{e.effective_rank[0]:.3g} to {e.effective_rank[-1]:.3g}"
    finish(
        ax,
        f"The largest eigenvalue ends at {e.growth[-1, 0]:.2g} of its start; effective rank {rank}",
    )
    return artists


def _time(ax: "Axes", times: np.ndarray) -> None:
    """Times as they are: the start, which has no logarithm, belongs to the picture."""
    if times[0] == 0 and len(times) > 2 and times[-1] > 30 * times[1]:
        ax.set_xscale("symlog", linthresh=times[1], linscale=0.4)
        ax.set_xlim(-0.15 * times[1], 1.25 * times[-1])
        # Powers of ten below the first time lie next to zero, in its linear part.
        first, last = np.ceil(np.log10(times[1])), np.floor(np.log10(times[-1]))
        ax.set_xticks([0, *10.0 ** np.arange(first, last + 1)])
        ax.xaxis.set_minor_formatter(matplotlib().ticker.NullFormatter())
    ax.set_xlabel("time")


def _moved(e: "Evolution") -> str:
    drift = float(e.drift[-1])
    text = f"The kernel moves by {f'{drift:.2g} times' if drift >= 2 else f'{drift:.0%} of'} itself"
    if e.alignment is None:
        return text
    change = e.alignment[-1] - e.alignment[0]
    turn = "towards" if change > 0 else "away from"
    return f"{text}, {turn} the targets ({e.alignment[0]:.2f} to {e.alignment[-1]:.2f})"
