"""Test accuracy, or test loss, of the kernel and of the networks."""

from typing import TYPE_CHECKING, Any

from ntk_lab.plot.style import PREDICTORS, curve, finish, matplotlib, time_axis, width_index

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntk_lab.compare import Comparison


def accuracy(c: "Comparison", ax: "Axes", width: int | None = None) -> list[Any]:
    """Test accuracy over time of kernel regression, linearized and real networks.

    For regression, which has no classes, the test loss ``1/(2n) sum |f - y|^2``.

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
        A line and a band for each predictor.

    Raises
    ------
    InputError
        A width that was not compared.
    """
    matplotlib()
    i = width_index(c, width)
    name = "accuracy" if any(m.startswith("accuracy/") for m in c.measures) else "test_loss"
    shown = [p for p in PREDICTORS if f"{name}/{p}" in c.measures]
    artists = []
    for predictor in shown:
        label, colour = PREDICTORS[predictor]
        values = c.measures[f"{name}/{predictor}"][i]
        artists += curve(ax, c.times, values, color=colour, label=label)
    time_axis(ax, c.times)
    if name == "accuracy":
        ax.set_ylabel("test accuracy")
    else:
        ax.set_ylabel("test loss (mean over examples)")
        ax.set_ylim(bottom=0)
    finish(ax, _title(c, i, name, shown), columns=2)
    return artists


def _title(c: "Comparison", i: int, name: str, shown: list[str]) -> str:
    kernel, real = (
        float(c.measures[f"{name}/{p}"][i, :, -1].mean()) for p in (shown[0], shown[-1])
    )
    what = "accuracy" if name == "accuracy" else "loss"
    digits = ".1%" if name == "accuracy" else ".3g"
    return (
        f"Test {what} at the end, {c.name(c.widths[i])}: kernel {kernel:{digits}}, "
        f"network {real:{digits}}"
    )
