"""A comparison in words and plain-text tables."""

from typing import TYPE_CHECKING

import numpy as np

from ntk_lab.compare.budget import TOTAL
from ntk_lab.compare.scaling import Exponent, RequiredWidth
from ntk_lab.theory import width_theory

if TYPE_CHECKING:
    from ntk_lab.compare.comparison import Comparison


def full_text(c: "Comparison") -> str:
    """Heading, tables at an early and at the last step, exponents and conclusion."""
    s = c.settings
    early = c.steps[0]
    heading = (
        f"{s['parameterization']} parameterization, {len(c.seeds)} seeds, {s['train']} training "
        f"and {s['test']} test examples, {c.steps[-1]} steps\n"
        "Gaps are relative to how far the function moved; +- is the standard error over seeds."
    )
    tables = [table(c, step) for step in dict.fromkeys((early, c.steps[-1]))]
    return "\n\n".join([heading, *tables, exponent_table(c), conclusion(c)])


def table(c: "Comparison", step: int) -> str:
    """Error budget by width at one step."""
    j = c.steps.index(step)
    rows = [["width", *c.gaps, TOTAL, "drift", "verdict"]]
    for i, width in enumerate(c.widths):
        cells = [mean_and_error(c.gap(g)[i, :, j]) for g in (*c.gaps, TOTAL)]
        drift = mean_and_error(c.measures["drift"][i, :, j])
        rows.append([str(width), *cells, drift, verdict_text(c, width, step)])
    return f"step {step}, time {c.times[j]:.4g}\n{_align(rows)}"


def exponent_table(c: "Comparison", step: int | None = None) -> str:
    """Fitted width exponents beside theory's, and the required width."""
    step = c.steps[-1] if step is None else step
    rows = [["gap ~ width^p", "p", f"{c.confidence:.0%} interval", "theory"]]
    rows += [[name, *exponent_cells(e)] for name, e in c.exponents(step).items()]
    needed = required_width_text(c.required_width(step), c.confidence)
    return (
        f"width exponents at step {step}\n{_align(rows)}\n"
        f"width for a total gap of {c.tolerance:g}: {needed}"
    )


def exponent_cells(e: Exponent | None) -> list[str]:
    """Value, interval and theory of an exponent as text."""
    if e is None:
        return ["-", "-", "-"]
    theory = "-" if e.theory is None else f"{e.theory:+.1f}"
    return [f"{e.value:+.2f}", f"[{e.lower:+.2f}, {e.upper:+.2f}]", theory]


def required_width_text(r: RequiredWidth, confidence: float) -> str:
    """Required width with its interval, or why there is none."""
    if np.isnan(r.value):
        return f"unknown ({r.reason})"
    if np.isinf(r.value):
        return f"never ({r.reason})"
    if r.reason:
        return f"at most {_width(r.value)} ({r.reason} measured)"
    upper = "unbounded" if np.isinf(r.upper) else _width(r.upper)
    return f"{_width(r.value)} ({confidence:.0%} interval {_width(r.lower)} to {upper})"


def _width(value: float) -> str:
    return f"{value:.0f}" if value < 1e6 else f"{value:.1e}"


def verdict_text(c: "Comparison", width: int, step: int) -> str:
    """Verdict with its bound, and what would decide an undecided one."""
    v = c.verdicts[width, step]
    if v.status == "predicts":
        return f"predicts (< {v.upper:.3f})"
    if v.status == "fails":
        return f"fails (> {v.lower:.3f}, mainly {c.dominant(width, step)})"
    more = "no feasible number of seeds would decide"
    if len(c.seeds) < 2:
        more = "one seed has no error bar; run at least 2"
    elif v.more_seeds is not None:
        more = f"{v.more_seeds} more seed{'s' * (v.more_seeds != 1)} would decide"
    return f"undecided ({more})"


def conclusion(c: "Comparison") -> str:
    """Verdict over widths and time, dominant cause, exponent and required width."""
    widest, last = c.widths[-1], c.steps[-1]
    lines = []
    for width in c.widths:
        until = c.predicts_until(width)
        if until == c.times[-1]:
            lines.append(f"width {width}: kernel regression predicts the whole run.")
        elif until > 0:
            lines.append(f"width {width}: kernel regression predicts up to time {until:.4g}.")
        else:
            status = c.verdicts[width, c.steps[0]].status
            what = "fails" if status == "fails" else "is undecided"
            lines.append(f"width {width}: kernel regression {what} at the first recorded step.")
    theory = width_theory(c.settings["parameterization"])
    total = c.exponents()[TOTAL]
    lines.append(
        f"At width {widest} and the last step the verdict is '{c.verdicts[widest, last].status}'; "
        f"the largest gap is {c.dominant(widest, last)}."
    )
    if total is not None:
        says = "theory gives no power for its main cause"
        if total.theory is not None:
            says = f"theory says {total.theory:+.1f} ({theory.source})"
        lines.append(
            f"The total gap goes as width^({total.value:+.2f}), {c.confidence:.0%} interval "
            f"[{total.lower:+.2f}, {total.upper:+.2f}]; {says}."
        )
    needed = required_width_text(c.required_width(), c.confidence)
    lines.append(f"Width at which the gap at the last step is within {c.tolerance:g}: {needed}.")
    return "\n".join(lines)


def mean_and_error(values: np.ndarray) -> str:
    """Mean over seeds with its standard error."""
    if len(values) < 2:
        return f"{values.mean():.4f}"
    return f"{values.mean():.4f} +- {values.std(ddof=1) / len(values) ** 0.5:.4f}"


def _align(rows: list[list[str]]) -> str:
    sizes = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip()
        for row in rows
    )
