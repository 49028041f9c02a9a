"""What all figures share: colours, error bands, and matplotlib, imported only here."""

import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ntk_lab.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ntk_lab.compare import Comparison

TIME = "time = learning rate × steps"
GAP = "gap / movement of the function"

# Okabe and Ito's palette. A cause has the same colour wherever it appears; a predictor has that
# of the cause that separates it from the one before.
CAUSES = {
    "discretization": "#56B4E9",
    "finite-width kernel": "#0072B2",
    "feature learning": "#CC79A7",
    "optimizer": "#E69F00",
    "total": "#000000",
}
PREDICTORS = {
    "kernel flow": ("kernel regression", "#000000"),
    "linearized": ("linearized network", CAUSES["finite-width kernel"]),
    "network": ("network, gradient descent", CAUSES["feature learning"]),
    "optimizer": ("network as trained", CAUSES["optimizer"]),
}
STATUSES = {"predicts": "#009E73", "undecided": "#BBBBBB", "fails": "#D55E00"}
GUIDE = "#777777"
_MARKERS = "osD^vP*X"
_TITLE_CHARACTERS_PER_INCH = 12.5


def matplotlib() -> Any:
    """The module ``matplotlib``, with ``figure`` and ``ticker``; pyplot stays untouched."""
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.layout_engine
        import matplotlib.lines
        import matplotlib.patches
        import matplotlib.ticker
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'ntk_lab[report]'.") from error
    return matplotlib


def new_figure(width: float, height: float) -> "Figure":
    """A figure that pyplot does not know of, so nothing global changes; notebooks show it."""
    layout = matplotlib().layout_engine.ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    return _figure_class()(figsize=(width, height), layout=layout, dpi=100)


@cache
def _figure_class() -> Any:
    class Figure(matplotlib().figure.Figure):
        def _repr_png_(self) -> bytes:
            from io import BytesIO

            stream = BytesIO()
            self.savefig(stream, format="png")
            return stream.getvalue()

    return Figure


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds (the first axis) and its standard error, zero for a single seed."""
    mean = values.mean(axis=0)
    if len(values) < 2:
        return mean, np.zeros_like(mean)
    return mean, values.std(axis=0, ddof=1) / len(values) ** 0.5


def curve(ax: "Axes", times: np.ndarray, values: np.ndarray, **look: Any) -> list[Any]:
    """Mean over seeds against log time, with a band of one standard error."""
    mean, error = mean_and_error(values)
    look = {"marker": "o", "markersize": 3, "linewidth": 1.6} | look
    (line,) = ax.plot(times, mean, **look)
    band = ax.fill_between(
        times, mean - error, mean + error, color=line.get_color(), alpha=0.2, linewidth=0
    )
    return [line, band]


def time_axis(ax: "Axes", times: np.ndarray) -> None:
    """Logarithmic time with a label; labels at recorded times where powers of ten are too few."""
    ax.set_xscale("log")
    ax.set_xlim(times[0] / 1.25, times[-1] * 1.25)
    ticker = matplotlib().ticker
    ax.xaxis.set_minor_formatter(ticker.NullFormatter())
    if times[-1] < 30 * times[0]:
        chosen = np.geomspace(times[0], times[-1], 4)
        nearest = {int(np.abs(np.log(times / t)).argmin()) for t in chosen}
        shown = [times[j] for j in sorted(nearest)]
        ax.set_xticks(shown, [f"{t:.2g}" for t in shown])
    ax.set_xlabel(TIME)


def width_colours(widths: tuple[int, ...]) -> list[Any]:
    """A colour for each width, dark to light; the marker tells them apart in grey too."""
    shades = np.linspace(0.0, 0.85, len(widths)) if len(widths) > 1 else [0.3]
    return [matplotlib().colormaps["viridis"](s) for s in shades]


def marker(i: int) -> str:
    """Marker of the width number ``i``."""
    return _MARKERS[i % len(_MARKERS)]


def finish(ax: "Axes", title: str, *, columns: int = 1, handles: list[Any] | None = None) -> None:
    """Title that says what is seen, quiet grid, and a legend under the axes.

    ``handles`` are the entries of the legend, by default everything with a label.
    """
    figure = ax.get_figure(root=True)
    inches = ax.get_position().width * (figure.get_figwidth() if figure else 5.0)
    characters = max(24, int(inches * _TITLE_CHARACTERS_PER_INCH))
    title = textwrap.fill(title, characters, break_on_hyphens=False)
    ax.set_title(title, loc="left", fontsize=10, fontweight="bold")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, which="major", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.17),
        ncols=columns,
        fontsize=8,
        frameon=False,
        borderaxespad=0,
    )


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, and a true minus."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def width_index(c: "Comparison", width: int | None) -> int:
    """Position of a width, the largest by default."""
    if width is None:
        return len(c.widths) - 1
    if width not in c.widths:
        raise InputError(f"width {width} was not compared; compared are {c.widths}.")
    return c.widths.index(width)
