"""Gaps against width, with fitted power laws."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ntk_lab.plot.style import (
    CAUSES,
    GAP,
    GUIDE,
    finish,
    marker,
    matplotlib,
    mean_and_error,
    signed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.compare import Comparison


def scaling(c: "Comparison", ax: "Axes", step: int | None = None) -> list[Any]:
    """Each gap against width on logarithmic axes, its fitted power law, and theory's slope.

    Parameters
    ----------
    c
        The comparison.
    ax
        Axes to draw into.
    step
        One of ``c.steps``; default the last.

    Returns
    -------
    list of Artist
        For each gap its points with error bars, its fitted line, and theory's slope as a thin
        dotted line through the middle of the points, as far as they exist; then the tolerance.

    Raises
    ------
    InputError
        A step that was not recorded.
    """
    exponents = c.exponents(step)
    j = len(c.steps) - 1 if step is None else c.steps.index(step)
    widths = np.asarray(c.widths, float)
    artists: list[Any] = []
    handles: list[Any] = []
    for k, (name, exponent) in enumerate(exponents.items()):
        mean, error = mean_and_error(np.swapaxes(c.gap(name)[:, :, j], 0, 1))
        label = name if exponent is None else f"{name}: width^{signed(exponent.value)}"
        look = {"color": CAUSES[name], "marker": marker(k), "markersize": 5, "capsize": 2}
        # A bar down to zero or below has no place on a logarithmic axis.
        below = np.minimum(error, 0.9 * mean)
        handles.append(ax.errorbar(widths, mean, [below, error], linestyle="", label=label, **look))
        artists.append(handles[-1])
        if exponent is None:
            continue
        centre = float(np.exp(np.log(widths).mean()))
        level = float(np.exp(np.log(c.gap(name)[:, :, j]).mean()))
        heavy = 2.4 if name == "total" else 1.6
        fitted = level * (widths / centre) ** exponent.value
        artists += ax.plot(widths, fitted, color=CAUSES[name], linewidth=heavy)
        if exponent.theory is not None:
            slope = level * (widths / centre) ** exponent.theory
            artists += ax.plot(widths, slope, color=CAUSES[name], linewidth=0.8, linestyle=":")
    tolerance = ax.axhline(
        c.tolerance, color=GUIDE, linestyle="--", linewidth=1.2, label="tolerance"
    )
    handles.append(tolerance)
    if any(e is not None and e.theory is not None for e in exponents.values()):
        handles += ax.plot(
            [], [], color=GUIDE, linewidth=0.8, linestyle=":", label="theory's slope"
        )
    _axes(c, ax)
    finish(ax, _title(exponents["total"], c.steps[j]), columns=2, handles=handles)
    return [*artists, tolerance]


def _axes(c: "Comparison", ax: "Axes") -> None:
    ticker = matplotlib().ticker
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(c.widths, [str(w) for w in c.widths])
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.set_xlim(c.widths[0] / 1.3, c.widths[-1] * 1.3)
    ax.set_xlabel("width (neurons in a hidden layer)")
    ax.set_ylabel(GAP)


def _title(total: Any, step: int) -> str:
    if total is None:
        return f"Gaps at step {step}; no power law of the width can be fitted"
    verb = "falls" if total.upper < 0 else "grows" if total.lower > 0 else "goes"
    power = f"The total gap {verb} as width^{signed(total.value)} at step\N{NO-BREAK SPACE}{step}"
    return power if total.theory is None else f"{power}; theory says {signed(total.theory, 1)}"
