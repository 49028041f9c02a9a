"""All figures of a comparison on one page."""

from typing import TYPE_CHECKING

from ntk_lab.plot.accuracy import accuracy
from ntk_lab.plot.budget import budget
from ntk_lab.plot.drift import drift
from ntk_lab.plot.kernel import kernel
from ntk_lab.plot.motion import motion
from ntk_lab.plot.scaling import scaling
from ntk_lab.plot.style import new_figure
from ntk_lab.plot.verdict import verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ntk_lab.compare import Comparison


def overview(c: "Comparison") -> "Figure":
    """Verdict, error budget, width scaling, drift, motion and accuracy in one figure.

    For a model without a width, how its kernel turns takes the place of the scaling.

    Parameters
    ----------
    c
        The comparison.

    Returns
    -------
    Figure
        Unknown to pyplot: notebooks show it, ``.savefig(path)`` keeps it.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> c = ntk.Comparison.load("reports/digits-ntk")  # doctest: +SKIP
    >>> c.plot().savefig("overview.png")  # doctest: +SKIP
    """
    figure = new_figure(15.5, 9.2)
    axes = figure.subplots(2, 3)
    third = kernel if c.theory is None else scaling
    for draw, ax in zip((verdict, budget, third, drift, motion, accuracy), axes.flat, strict=True):
        draw(c, ax)
    name = c.settings.get("model") or f"{c.settings['parameterization']} parameterization"
    figure.suptitle(
        f"Does kernel regression predict training? {name}, "
        f"{len(c.seeds)} seed{'s' * (len(c.seeds) != 1)}, tolerance {c.tolerance:g}",
        fontsize=13,
    )
    return figure
