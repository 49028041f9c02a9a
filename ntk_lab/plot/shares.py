"""Which part of a network carries its kernel, or the change of its predictions."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ntk_lab.errors import InputError
from ntk_lab.plot.style import CAUSES, GUIDE, finish, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.empirical import PredictionShares, Shares


def shares(s: "Shares | PredictionShares", ax: "Axes") -> list[Any]:
    """Shares of layers as bars, in the order of the network from top to bottom.

    Parameters
    ----------
    s
        From :func:`ntk_lab.empirical.kernel_shares` or
        :func:`ntk_lab.empirical.prediction_shares`.
    ax
        Axes to draw into.

    Returns
    -------
    list of Artist
        A container of bars for each kind of share. For kernels: of all parameters, of the trace
        and, with targets, of the target direction. For predictions: of the change, the nonlinear
        rest last.
    """
    matplotlib()
    names, bars, what = _bars(s)
    rows, height = np.arange(len(names)), 0.8 / len(bars)
    artists = []
    for i, (label, (values, colour)) in enumerate(bars.items()):
        places = rows + (i - (len(bars) - 1) / 2) * height
        artists.append(ax.barh(places, values, height, color=colour, label=label))
    ax.set_yticks(rows, names)
    ax.invert_yaxis()
    ax.axvline(0, color=GUIDE, linewidth=0.8)
    ax.xaxis.set_major_formatter(matplotlib().ticker.PercentFormatter(1.0))
    ax.set_xlabel("share")
    ax.set_ylabel("layer")
    main = next(reversed(bars.values()))[0]
    best = int(np.argmax(main))
    finish(ax, f"{names[best]} carries {main[best]:.0%} of {what}", columns=3)
    return artists


def neurons(units: ArrayLike, ax: "Axes") -> list[Any]:
    """How few neurons of a layer carry how much: their shares added up, largest first.

    Parameters
    ----------
    units
        Shares of the units of one layer, ``(units,)``: what `Shares.units` returned.
    ax
        Axes to draw into.

    Returns
    -------
    list of Artist
        The curve, and the diagonal of a layer whose neurons are all alike.

    Raises
    ------
    InputError
        Something else than a vector of numbers that are not negative and not all zero.
    """
    values = np.asarray(units, np.float64)
    if values.ndim != 1 or not (values >= 0).all() or not values.sum() > 0:
        raise InputError(
            f"units have shape {values.shape}; expected shares (units,), none negative and not "
            "all zero, such as shares.units('layers/0/w')[0]."
        )
    matplotlib()
    added = np.concatenate([[0], np.cumsum(np.sort(values)[::-1]) / values.sum()])
    part = np.linspace(0, 1, len(added))
    artists = ax.plot(part, added, color=CAUSES["finite-width kernel"], label="neurons")
    artists += ax.plot([0, 1], [0, 1], color=GUIDE, linestyle=":", label="all alike")
    percent = matplotlib().ticker.PercentFormatter(1.0)
    ax.xaxis.set_major_formatter(percent)
    ax.yaxis.set_major_formatter(percent)
    ax.set_xlabel("neurons, largest share first")
    ax.set_ylabel("share of the layer")
    half = int(np.searchsorted(added, 0.5))
    noun = "neurons carries" if half == 1 else "neurons carry"
    finish(ax, f"{half} of {len(values)} {noun} half of the layer's share", columns=2)
    return artists


def _bars(s: Any) -> tuple[list[str], dict[str, tuple[np.ndarray, str]], str]:
    """Names, bars with their colours, and what is shared."""
    if hasattr(s, "rest_share"):
        rest = "quadrature" if s.points else "nonlinear rest"
        values = np.append(s.shares, s.rest_share)
        label = "change of predictions"
        return [*s.names, rest], {label: (values, CAUSES["feature learning"])}, f"the {label}"
    names = [name or "parameters" for name in s.names]
    bars = {
        "parameters": (s.parameters / s.parameters.sum(), "#BBBBBB"),
        "trace of the kernel": (s.trace, CAUSES["discretization"]),
    }
    if s.target is None:
        return names, bars, "the kernel's trace"
    bars["target direction"] = (s.target, CAUSES["finite-width kernel"])
    return names, bars, "the kernel in the target direction"
