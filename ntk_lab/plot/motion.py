"""How far the parameters move."""

from typing import TYPE_CHECKING, Any

from ntk_lab.plot.drift import over_widths

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.compare import Comparison


def motion(c: "Comparison", ax: "Axes") -> list[Any]:
    """Relative motion of the parameters over time, a line and a band for each width.

    Small motion beside a large change of the function is lazy training (arXiv:1812.07956).

    Parameters
    ----------
    c
        The comparison.
    ax
        Axes to draw into.

    Returns
    -------
    list of Artist
        A line and a band for each width.
    """
    label = r"parameter motion $|\theta_t-\theta_0|/|\theta_0|$"
    return over_widths(c, ax, "motion", label, _title(c))


def _title(c: "Comparison") -> str:
    first, last = (f"{float(c.measures['motion'][i, :, -1].mean()):.2g}" for i in (0, -1))
    if len(c.widths) == 1:
        return f"Parameters of {c.name(c.widths[0])} move by {first} of their norm"
    return (
        f"Parameters move by {first} of their norm at width {c.widths[0]}, by {last} at width "
        f"{c.widths[-1]}"
    )
