"""A comparison in words and plain-text tables."""

from typing import TYPE_CHECKING

import numpy as np

from ntk_lab.compare.budget import TOTAL, UNDER_OPTIMIZER
from ntk_lab.compare.horizon import THEORY_SOURCE
from ntk_lab.compare.scaling import Exponent, RequiredWidth

if TYPE_CHECKING:
    from ntk_lab.compare.comparison import Comparison


def full_text(c: "Comparison") -> str:
    """Heading, tables at an early and at the last step, exponents and conclusion."""
    s = c.settings
    early = c.steps[0]
    what = s.get("model") or f"{s['parameterization']} parameterization"
    runs = "one run" if c.one_run else f"{len(c.seeds)} seeds"
    heading = (
        f"{what}, {runs}, {s['train']} training and {s['test']} test examples, "
        f"{c.steps[-1]} steps\nGaps are relative to how far the function moved; +- is the "
        f"standard error over {s.get('error_bars', 'seeds')}."
    )
    tables = [table(c, step) for step in dict.fromkeys((early, c.steps[-1]))]
    exponents = [] if c.theory is None else [exponent_table(c)]
    return "\n\n".join([heading, *tables, *exponents, conclusion(c)])


def table(c: "Comparison", step: int) -> str:
    """Error budget by width at one step."""
    j = c.steps.index(step)
    rows = [["" if c.theory is None else "width", *c.gaps, TOTAL, "drift", "verdict"]]
    for i, width in enumerate(c.widths):
        cells = [gap_cell(c, g, i, j) for g in (*c.gaps, TOTAL)]
        drift = mean_and_error(c.measures["drift"][i, :, j])
        rows.append([row_name(c, width), *cells, drift, verdict_text(c, width, step)])
    return f"step {step}, time {c.times[j]:.4g}\n{_align(rows)}"


def row_name(c: "Comparison", width: int) -> str:
    """First cell of a network's row: its width, if it has one."""
    return c.name(width).removeprefix("width ")


def gap_cell(c: "Comparison", gap: str, i: int, j: int) -> str:
    """One gap with its standard error, of the row number ``i`` and the step number ``j``."""
    values = c.gap(gap)[i, :, j]
    if c.one_run:
        return f"{values[0]:.4f} +- {c.measures[f'error/{gap}'][i, 0, j]:.4f}"
    return mean_and_error(values)


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
    if c.one_run:
        more = "more test examples would decide"
    elif len(c.seeds) < 2:
        more = "one seed has no error bar; run at least 2"
    elif v.more_seeds is not None:
        more = f"{v.more_seeds} more seed{'s' * (v.more_seeds != 1)} would decide"
    return f"undecided ({more})"


def conclusion(c: "Comparison") -> str:
    """Verdict over widths and time, dominant cause, exponent and required width."""
    lines = []
    for width in c.widths:
        until, name = c.predicts_until(width), c.name(width)
        if until == c.times[-1]:
            lines.append(f"{_upper(name)}: kernel regression predicts the whole run.")
        elif until > 0:
            lines.append(f"{_upper(name)}: kernel regression predicts up to time {until:.4g}.")
        else:
            status = c.verdicts[width, c.steps[0]].status
            what = "fails" if status == "fails" else "is undecided"
            lines.append(f"{_upper(name)}: kernel regression {what} at the first recorded step.")
    lines += [_last_step(c), _horizon_line(c), *_ensemble_lines(c)]
    if c.theory is None:
        return "\n".join(lines + _of_model(c))
    return "\n".join(lines + _scaling_lines(c))


def _last_step(c: "Comparison") -> str:
    widest, last = c.widths[-1], c.steps[-1]
    return (
        f"For {c.name(widest)} at the last step the verdict is '{c.verdicts[widest, last].status}';"
        f" the largest gap is {c.dominant(widest, last)}."
    )


def horizon_text(c: "Comparison", width: int, gap: str = TOTAL) -> str:
    """Horizon of one network with its interval, in words."""
    h, last = c.horizon(width, gap), c.times[-1]
    if h.value == 0:
        return f"before time {c.times[0]:.3g}, the first recorded"
    value = f"beyond the run, time {last:.3g}" if np.isinf(h.value) else f"time {h.value:.3g}"
    if len(c.seeds) < 2 and not c.one_run:
        return f"{value} (one seed: no interval)"
    if np.isinf(h.lower):
        return value
    lower = f"{h.lower:.3g}" if h.lower > 0 else f"below {c.times[0]:.3g}"
    upper = f"{h.upper:.3g}" if np.isfinite(h.upper) else "beyond the run"
    return f"{value} ({c.confidence:.0%} bounds {lower} to {upper})"


def _upper(name: str) -> str:
    return name[0].upper() + name[1:] if name.startswith("the ") else name


def _horizon_line(c: "Comparison") -> str:
    return (
        f"Horizon, until which the total gap is within {c.tolerance:g}: "
        + "; ".join(f"{c.name(w)}: {horizon_text(c, w)}" for w in c.widths)
        + "."
    )


def _ensemble_lines(c: "Comparison") -> list[str]:
    """The distribution over initializations at the last step, at every width."""
    parts = []
    for width in c.widths:
        e = c.ensemble(width)
        if e is not None:
            agrees = "as predicted" if e.calibrated(c.confidence) else "not as predicted"
            parts.append(
                f"{c.name(width)}: {agrees} (mean off by {e.z:+.1f} standard errors, spread "
                f"{e.spread:.2f} +- {e.spread_error:.2f} of the predicted, {e.coverage:.0%} +- "
                f"{e.coverage_error:.0%} of outputs inside their {e.level:.0%} interval)"
            )
    if not parts:
        return []
    return [f"Over initializations, networks are distributed at {'; '.join(parts)}."]


def _of_model(c: "Comparison") -> list[str]:
    """What stands beside the budget of a model: its pace, and its kernel regime."""
    s, lines = c.settings, []
    if s["optimizer"]:
        lines.append(f"Gradient flow runs {s['pace']}: {c.times[-1]:.4g} of time in all.")
    if f"gap/{UNDER_OPTIMIZER}" in c.measures:
        beside = gap_cell(c, UNDER_OPTIMIZER, 0, len(c.steps) - 1)
        lines.append(
            "Linearized and trained with the same optimizer, the model ends at a gap of "
            f"{beside} from the real one: that part is feature learning, whatever the optimizer."
        )
    return lines


def _scaling_lines(c: "Comparison") -> list[str]:
    theory, total, lines = c.theory, c.exponents()[TOTAL], []
    if total is not None and theory is not None:
        says = "theory gives no power for its main cause"
        if total.theory is not None:
            says = f"theory says {total.theory:+.1f} ({theory.source})"
        lines.append(
            f"The total gap goes as width^({total.value:+.2f}), {c.confidence:.0%} interval "
            f"[{total.lower:+.2f}, {total.upper:+.2f}]; {says}."
        )
    moving = c.horizon_exponent("feature learning")
    if moving is not None:
        says = ""
        if moving.theory is not None:
            says = f"; theory says at least {moving.theory:+.1f} ({THEORY_SOURCE})"
        lines.append(
            f"The horizon of feature learning alone goes as width^({moving.value:+.2f}) "
            f"[{moving.lower:+.2f}, {moving.upper:+.2f}]{says}."
        )
    needed = required_width_text(c.required_width(), c.confidence)
    lines.append(f"Width at which the gap at the last step is within {c.tolerance:g}: {needed}.")
    return lines


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
