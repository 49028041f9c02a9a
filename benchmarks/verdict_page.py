"""The page docs/verdicts.md and its figure, from the saved budgets."""

from typing import Any

import numpy as np

from ntk_lab.plot.style import GUIDE, new_figure

NAMES = {"ntk": "NTK", "standard": "standard", "mean_field": "mean-field", "mup": "mu"}
COLOURS = {"ntk": "#0072B2", "standard": "#56B4E9", "mean_field": "#D55E00", "mup": "#CC79A7"}
KERNEL_LIMIT = ("ntk", "standard")
COLUMNS = (
    "parameterization", "verdict", "total gap", "mainly", "drift", "width^p, total", "theory",
    "width^p, features", "theory", "accuracy, kernel / network",
)  # fmt: skip
Row = dict[str, Any]
CELLS = 36
# Measured once, beside the table: MLP, mean-field, digits, the same settings but for what is said.
_FALLING = """The fall is that of the MLP on digits, so it was followed: at width
  2048 (one seed) the mean-field gap is 0.166, after 0.466, 0.313 and 0.208 at 32, 128 and 512, a
  power of -0.17 over the last step in place of -0.29, which is a slow approach to a limit or
  none: the widths do not decide. It is not for the initial outputs: without them (`alpha=1`, two
  seeds) the gap is 0.48 at width 32 and 0.18 at 512. In a run eleven times shorter it is flat,
  0.32, 0.26 and 0.26. That long runs end in a fit of the training data, which network and
  linearization share, may be a cause; it was not shown."""


def page(record: dict[str, Any]) -> str:
    """The whole page."""
    rows = record["rows"]
    parts = [_head(record)]
    if len(rows) < CELLS:
        parts.append(f"**{len(rows)} of {CELLS} cells are measured so far.**\n")
    for pair in dict.fromkeys((r["data"], r["architecture"]) for r in rows):
        part = [r for r in rows if (r["data"], r["architecture"]) == pair]
        parts.append(_section(part))
    return "\n".join([*parts, _summary(record), _foot(record)])


def figure(rows: list[Row]) -> Any:
    """Total gap against width, a panel for each data set and architecture."""
    data = list(dict.fromkeys(r["data"] for r in rows))
    kinds = list(dict.fromkeys(r["architecture"] for r in rows))
    fig = new_figure(3.4 * len(kinds), 2.6 * len(data) + 0.4)
    axes = fig.subplots(len(data), len(kinds), squeeze=False)
    for ax, (i, j) in zip(axes.flat, np.ndindex(axes.shape), strict=True):
        for row in rows:
            if (row["data"], row["architecture"]) == (data[i], kinds[j]):
                _line(ax, row)
        ax.axhline(rows[0]["tolerance"], color=GUIDE, linestyle="--", linewidth=1)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(0.02, 3)
        ax.set_title(f"{kinds[j]} on {data[i]}", fontsize=10)
        widths = next(r["widths"] for r in rows if r["architecture"] == kinds[j])
        ax.set_xticks(widths, [str(w) for w in widths])
        ax.set_xticks([], minor=True)
        if i == len(data) - 1:
            ax.set_xlabel("width")
        if j == 0:
            ax.set_ylabel("total gap")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return fig


def _line(ax: Any, row: Row) -> None:
    name = row["parameterization"]
    mean, error = np.asarray(row["total"]).T
    style = "-" if name in KERNEL_LIMIT else ":"
    look = {"color": COLOURS[name], "linestyle": style, "marker": "o", "markersize": 4}
    ax.errorbar(row["widths"], mean, error, capsize=2, label=NAMES[name], **look)


def _head(record: dict[str, Any]) -> str:
    s, row = record["settings"], record["rows"][0]
    return f"""\
# Verdicts: does kernel regression predict training?

<!-- Written by benchmarks/verdicts.py from benchmarks/results/verdicts.json; do not edit. -->

Three data sets, three architectures, four parameterizations: `ntk.compare` with {s["seeds"]} seeds,
{s["examples"]} training and {s["examples"]} test examples, squared loss, full-batch gradient
descent for {s["steps"]} steps at {s["rate"]} of the stability limit of each kernel: all train for
the same time in units of their kernel's fastest mode. Where narrow networks
would diverge, all of the cell are trained in twice as many steps of half the rate, or four times
as many. The networks are in
[`benchmarks/verdicts.py`](../benchmarks/verdicts.py). All numbers are of the last step.

- **verdict**: whether infinite-width kernel regression from the network's own initial outputs stays
  within {row["tolerance"]} of the network, relative to how far the function moved, at the largest
  width and 95% confidence.
- **total gap**, **drift**: at the largest width, mean and standard error over seeds. Drift is
  `|Theta_t - Theta_0| / |Theta_0|` of the finite network's NTK.
- **mainly**: the largest of the three gaps that lead from the kernel to the network.
- **width^p**: fitted powers of the width, with 95% intervals, of the total gap and of the gap of
  feature learning, beside theory's (`ntk.theory.width_theory`): where the limit is a kernel,
  -1/2 and -1; where it is not, 0.
- **accuracy**: on test examples, at the largest width.

![Total gap against width for each data set, architecture and parameterization](verdicts.png)

The dashed line is the tolerance. Solid lines: parameterizations whose infinitely wide limit is
kernel regression; dotted: those that learn features at every width, by theory (arXiv:2011.14522).
"""


def _section(rows: list[Row]) -> str:
    first = rows[0]
    widths = ", ".join(map(str, first["widths"]))
    lines = [
        f"## {first['architecture']} on {first['data']}, widths {widths}\n",
        _cells(COLUMNS),
        _cells(["---"] * len(COLUMNS)),
    ]
    lines += [_cells(_row(row)) for row in rows]
    lines += ["", *(f"- {sentence(row)}" for row in rows), ""]
    return "\n".join(lines)


def _row(row: Row) -> list[str]:
    total, features = row["exponents"]["total"], row["exponents"]["feature learning"]
    accuracy = row["accuracy"]
    return [
        NAMES[row["parameterization"]],
        row["verdicts"][-1],
        _mean(row["total"][-1]),
        row["dominant"],
        _mean(row["drift"][-1]),
        *_exponent(total),
        *_exponent(features),
        f"{accuracy['kernel flow']:.0%} / {accuracy['network']:.0%}",
    ]


def sentence(row: Row) -> str:
    """The finding of one cell, in one sentence."""
    name, width = NAMES[row["parameterization"]], row["widths"][-1]
    total, features = row["exponents"]["total"], row["gaps"]["feature learning"][-1]
    status, drift = row["verdicts"][-1], row["drift"][-1][0]
    subject = {
        "predicts": "kernel regression predicts the network",
        "fails": "kernel regression fails to predict the network",
        "undecided": "three seeds do not decide whether kernel regression predicts the network",
    }[status]
    cause = row["dominant"]
    parts = [
        f"**{name}**: {subject} of width {width}, with a gap of {_mean(row['total'][-1])} whose "
        f"largest part is {cause} ({_mean(row['gaps'][cause][-1])})",
        f"its NTK moves by {drift:.2g} times itself, which costs {_mean(features)}",
    ]
    if total is not None:
        parts.append(_trend(row, total))
    if row.get("slower", 1) > 1:
        parts.append(
            f"it is trained in {row['slower']} times as many and as small steps: narrow networks "
            "would diverge otherwise"
        )
    return parts[0] + "; " + ", and ".join(parts[1:]) + "."


def _trend(row: Row, total: list[Any]) -> str:
    value, low, high, theory = total
    if high < 0:
        return f"wider networks come closer, as width^({value:.2f}); {_needed(row, theory)}"
    if low > 0:
        return f"wider networks are further away, as width^({value:+.2f})"
    return f"the gap has no trend with width (power {low:+.2f} to {high:+.2f})"


def _needed(row: Row, theory: float | None) -> str:
    needed = row["required_width"]
    if needed.startswith(("never", "unknown")):
        return "no width is promised, as the limit is not a kernel" if theory == 0 else needed
    return f"within {row['tolerance']} from width {needed.replace('confidence ', '')}"


def _summary(record: dict[str, Any]) -> str:
    rows = record["rows"]
    lines = ["## All together\n", _cells(["", "predicts", "undecided", "fails", "drift, range"])]
    lines.append(_cells(["---"] * 5))
    for name, title in NAMES.items():
        own = [r for r in rows if r["parameterization"] == name]
        if not own:
            continue
        counts = [
            sum(r["verdicts"][-1] == s for r in own) for s in ("predicts", "undecided", "fails")
        ]
        drifts = [r["drift"][-1][0] for r in own]
        lines.append(_cells([title, *map(str, counts), f"{min(drifts):.2g} to {max(drifts):.2g}"]))
    return "\n".join([*lines, "", _beside_theory(rows)])


def _beside_theory(rows: list[Row]) -> str:
    """What theory (the dynamical dichotomy) says, and what does not look like it at first sight."""
    kernel, other = (
        [r for r in rows if (r["parameterization"] in KERNEL_LIMIT) == has] for has in (True, False)
    )
    powers, features = (
        f"{min(values):+.2f} to {max(values):+.2f}"
        for values in (
            [r["exponents"][gap][0] for r in kernel] for gap in ("total", "feature learning")
        )
    )

    def last(part: list[Row], extreme: Any) -> float:
        return extreme(r["drift"][-1][0] for r in part)

    first = [r["drift"][0][0] for r in kernel]
    lasting = [r["exponents"]["feature learning"][0] for r in other]
    return f"""\
Beside theory (arXiv:2011.14522: either the limit is a kernel, or features are learnt):

- NTK and standard parameterization (the latter at a learning rate over the width) come closer to
  the kernel as they become wider in every cell, with powers of the total from {powers} (theory
  -0.5). At the largest width their NTKs drift by at most {last(kernel, max):.2f}, those of
  mean-field and mu-parameterization by at least {last(other, min):.2f}.
- Feature learning alone falls with powers from {features} in them, slower than theory's -1.
  That is an expansion about infinite width; here the kernels of the smallest networks move by
  {min(first):.2f} to {max(first):.2f} of themselves.
- A verdict is about one width and one tolerance. Under mu-parameterization with ten outputs, the
  initial outputs are the root of ten times the mean-field ones: it is the lazier of the two, and
  a network of it can be within the tolerance although its limit is not a kernel.
- In mean-field and mu-parameterization theory has a power of 0 for feature learning; measured are
  {min(lasting):+.2f} to {max(lasting):+.2f}. {_FALLING}
"""


def _foot(record: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    seconds = sum(r["seconds"] for r in record["rows"])
    return f"{seconds / 60:.0f} minutes on {record['machine']['cores']} cores; {versions}.\n"


def _exponent(e: list[Any] | None) -> list[str]:
    if e is None:
        return ["-", "-"]
    value, low, high, theory = e
    return [f"{value:+.2f} [{low:+.2f}, {high:+.2f}]", "-" if theory is None else f"{theory:+.1f}"]


def _mean(pair: list[float]) -> str:
    return f"{pair[0]:.3f} +- {pair[1]:.3f}"


def _cells(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
