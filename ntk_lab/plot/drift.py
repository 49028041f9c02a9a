"""How far the kernel moves."""

from typing import TYPE_CHECKING, Any

from ntk_lab.plot.style import curve, finish, marker, matplotlib, time_axis, width_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.compare import Comparison


def drift(c: "Comparison", ax: "Axes") -> list[Any]:
    """Relative change of the empirical NTK over time, a line and a band for each width.

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
    return over_widths(c, ax, "drift", r"kernel drift $|\Theta_t-\Theta_0|/|\Theta_0|$", _title(c))


def over_widths(c: "Comparison", ax: "Axes", name: str, label: str, title: str) -> list[Any]:
    """One measure over time for every width, from zero up."""
    matplotlib()
    artists = []
    for i, (width, colour) in enumerate(zip(c.widths, width_colours(c.widths), strict=True)):
        artists += curve(
            ax,
            c.times,
            c.measures[name][i],
            color=colour,
            marker=marker(i),
            label=c.name(width),
        )
    time_axis(ax, c.times)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(label)
    finish(ax, title, columns=min(3, len(c.widths)))
    return artists


def _title(c: "Comparison") -> str:
    first, last = (float(c.measures["drift"][i, :, -1].mean()) for i in (0, -1))
    if len(c.widths) == 1:
        return f"The kernel of {c.name(c.widths[0])} moves by {first:.0%}"
    return (
        f"By the end the kernel has moved by {first:.0%} at width {c.widths[0]} and "
        f"{last:.0%} at width {c.widths[-1]}"
    )
