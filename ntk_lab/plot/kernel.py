"""How the empirical NTK turns in training."""

from typing import TYPE_CHECKING, Any

from ntk_lab.plot.style import CAUSES, curve, finish, marker, matplotlib, time_axis, width_index

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.compare import Comparison

_CURVES = {
    "alignment": ("alignment with the targets", CAUSES["optimizer"]),
    "kernel/CKA with the start": ("alignment (CKA) with the start", CAUSES["finite-width kernel"]),
    "kernel/overlap of top eigenvectors": (
        "overlap of top eigenvectors with the start",
        CAUSES["feature learning"],
    ),
}


def kernel(c: "Comparison", ax: "Axes", width: int | None = None) -> list[Any]:
    """Alignment of the NTK with targets and with its start, and rotation, over time.

    Parameters
    ----------
    c
        The comparison.
    ax
        Axes to draw into.
    width
        One of ``c.widths``; default the largest.

    Returns
    -------
    list of Artist
        A line and a band of one standard error for each.

    Raises
    ------
    InputError
        A width that was not compared.
    """
    matplotlib()
    i = width_index(c, width)
    artists = []
    for k, (name, (label, colour)) in enumerate(_CURVES.items()):
        if name in c.measures:
            look = {"color": colour, "label": label, "marker": marker(k)}
            artists += curve(ax, c.times, c.measures[name][i], **look)
    time_axis(ax, c.times)
    ax.set_ylim(min(0.0, ax.get_ylim()[0]), 1.03)
    ax.set_ylabel("share of one")
    before, after = (c.measures["alignment"][i, :, j].mean() for j in (0, -1))
    turned = "towards" if after > before else "away from"
    finish(
        ax,
        f"The kernel of {c.name(c.widths[i])} turns {turned} the targets: alignment "
        f"{before:.2f} to {after:.2f}",
    )
    return artists
