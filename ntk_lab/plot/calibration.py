"""Coverage of predicted intervals against their levels."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ntk_lab.plot.style import GUIDE, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.predict import Calibration


def calibration(c: "Calibration", ax: "Axes", label: str = "observed") -> list[Any]:
    """Share of targets within each central interval, beside what it should be.

    Parameters
    ----------
    c
        What `ntk_lab.predict.calibration` returned.
    ax
        Axes to draw into. Several calibrations may share it.
    label
        Of the curve, in the legend; the mean log score is added.

    Returns
    -------
    list of Artist
        The curve, then the diagonal with the band of two standard errors around it.
    """
    levels, coverage = (np.asarray(x, float) for x in (c.levels, c.coverage.value))
    score, error = float(c.log_score.value), float(c.log_score.standard_error)
    text = f"{label}: log score {score:.2f} ± {error:.2f}".replace("-", "\N{MINUS SIGN}")
    curve = ax.plot(levels, coverage, marker="o", markersize=3, linewidth=1.6, label=text)
    line = ax.plot([0, 1], [0, 1], color=GUIDE, linestyle="--", linewidth=1.2, label="calibrated")
    grid = np.linspace(0, 1, 101)
    width = 2 * np.sqrt(grid * (1 - grid) / c.count)
    band = ax.fill_between(
        grid, grid - width, grid + width, color=GUIDE, alpha=0.2, linewidth=0,
        label="two standard errors",
    )  # fmt: skip
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("level of the interval")
    ax.set_ylabel("share of targets within it")
    finish(ax, _title(levels, coverage, c.count))
    return [*curve, *line, band]


def _title(levels: np.ndarray, coverage: np.ndarray, count: int) -> str:
    z = (coverage - levels) / np.sqrt(levels * (1 - levels) / count)
    worst = z[np.abs(z).argmax()]
    if np.abs(worst) < 3:
        return f"Intervals hold what they promise, on {count} targets"
    if worst > 0:
        return "Intervals are too wide: the prediction is less sure than it could be"
    return "Intervals are too narrow: the prediction is too sure of itself"
