"""A folder with everything a comparison says: numbers, figures, text, and one HTML page."""

import base64
import os
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntk_lab.compare.budget import TOTAL
from ntk_lab.compare.markup import cause, row, table
from ntk_lab.compare.page import GAP_TEXT, PAGE
from ntk_lab.compare.sections import (
    ensemble_section,
    horizon_table,
    horizon_theory,
    lead,
    scaling_section,
)
from ntk_lab.compare.text import (
    conclusion,
    gap_cell,
    mean_and_error,
    row_name,
    verdict_text,
)
from ntk_lab.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ntk_lab.compare.comparison import Comparison

_PANEL = (5.6, 4.4)  # inches
_MOST_COLUMNS = 2
_PANEL_REM = 38
_DPI = 120


def write_report(c: "Comparison", folder: str | os.PathLike, *, command: str | None = None) -> Path:
    """Write ``comparison.nc``, ``report.html``, ``report.txt`` and figures (PNG) to a folder.

    Parameters
    ----------
    c
        The comparison.
    folder
        Made if it does not exist; files of the same names are replaced.
    command
        The command line that made the comparison, to be shown in the report.

    Returns
    -------
    Path
        ``report.html``, one self-contained page that loads nothing.

    Raises
    ------
    InputError
        A folder that cannot be written.
    ImportError
        matplotlib or xarray is missing (extra ``report``).

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> c = ntk.Comparison.load("reports/digits-ntk")  # doctest: +SKIP
    >>> c.report("reports/digits-ntk")  # doctest: +SKIP
    PosixPath('reports/digits-ntk/report.html')
    """
    folder = Path(folder)
    page = folder / "report.html"
    figures = _figures(c)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        c.save(folder)
        for name, (figure, _) in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=_DPI)
        (folder / "report.txt").write_text(f"{c}\n", encoding="utf-8")
        shown = {n: text for n, (_, text) in figures.items() if text}
        page.write_text(_html(c, folder, shown, command), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the report cannot be written to {os.fspath(folder)!r}: {error.strerror}. Choose "
            "another folder, or change its permissions; the comparison itself is unharmed."
        ) from error
    return page


def _figures(c: "Comparison") -> dict[str, tuple["Figure", str]]:
    """Figures by the name of their file, and what the page says below them."""
    from ntk_lab import plot

    ends = [c.widths[0], c.widths[-1]][: len(c.widths)]
    figures = {
        "verdict": (
            _draw(plot.verdict, c, [None]),
            "Verdict by width and time; numbers are the mean total gap.",
        ),
        "budget": (
            _draw(plot.budget, c, list(c.widths)),
            "The error budget over time at each width. Bands are one standard error over seeds.",
        ),
        "scaling": (
            _draw(plot.scaling, c, [None]),
            "Gaps against width at the last step, with fitted power laws and theory's slopes.",
        ),
        "accuracy": (
            _draw(plot.accuracy, c, ends),
            "What the user of each model would see, at the smallest and the largest width.",
        ),
        "drift": (_draw(plot.drift, c, [None]), "How far the empirical NTK moves in training."),
        "kernel": (
            _draw(plot.kernel, c, ends),
            "How the NTK turns: towards the targets, and away from where it started.",
        ),
        "motion": (_draw(plot.motion, c, [None]), "How far the parameters move in training."),
        "overview": (plot.overview(c), ""),
    }
    if "sharpness/of the loss" in c.measures:
        figures["sharpness"] = (
            _draw(plot.sharpness, c, ends),
            "Largest eigenvalues of the loss's Hessian and of the NTK, beside the stability limit.",
        )
    if c.theory is None:  # there is no width to scale with
        del figures["scaling"]
    return figures


def _draw(draw: Any, c: "Comparison", widths: Sequence[int | None]) -> "Figure":
    """One panel for each width, or a single one for ``[None]``."""
    from ntk_lab.plot.style import new_figure

    columns = min(len(widths), _MOST_COLUMNS)
    rows = -(-len(widths) // columns)
    figure = new_figure(_PANEL[0] * columns, _PANEL[1] * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, width in zip(axes, widths, strict=False):
        draw(c, ax, *([] if width is None else [width]))
    for ax in axes[len(widths) :]:
        ax.set_axis_off()
    return figure


def _html(c: "Comparison", folder: Path, captions: dict[str, str], command: str | None) -> str:
    first, middle, last = c.steps[0], c.steps[len(c.steps) // 2], c.steps[-1]
    steps = sorted({first, middle, last})
    wide = ("budget", "accuracy", "kernel", "sharpness") if len(c.widths) > 1 else ()
    figures = {"scaling": "", "sharpness": ""} | {
        n: _figure_html(folder / f"{n}.png", text, _PANEL_REM * (1 + (n in wide)))
        for n, text in captions.items()
    }
    return PAGE.substitute(
        title=escape(
            "Kernel theory against training: "
            f"{c.settings.get('model') or c.settings['parameterization']}"
        ),
        badges="\n".join(_badge(c, width) for width in c.widths),
        conclusion="".join(f"<p>{escape(line)}</p>" for line in conclusion(c).splitlines()),
        budgets="\n".join(_budget_html(c, step) for step in steps),
        lead=lead(c),
        scaling_section=scaling_section(c),
        horizon_theory=horizon_theory(c),
        horizons=horizon_table(c),
        ensembles=ensemble_section(c),
        settings=_settings_html(c, command),
        meanings=_meanings_html(c),
        load=escape(_LOAD.format(folder=folder.as_posix())),
        **figures,
    )


_LOAD = """import ntk_lab as ntk

c = ntk.Comparison.load({folder!r})
print(c)                                  # the tables and the conclusion
c.dataset                                 # every number, an xarray Dataset with named axes
c.dataset["gap"].sel(cause="total").mean("seed")
c.plot().savefig("overview.png")"""


def _badge(c: "Comparison", width: int) -> str:
    """Verdict of a width at the last step, and how long it was predicted."""
    status = c.verdicts[width, c.steps[-1]].status
    until = c.predicts_until(width)
    if until == c.times[-1]:
        note = "the whole run"
    elif until > 0:
        note = f"predicted up to time {until:.3g}"
    else:
        note = verdict_text(c, width, c.steps[-1]).partition(" (")[2].removesuffix(")")
    return (
        f'<li class="badge {status}"><b>{escape(c.name(width))}</b><span>{status}</span>'
        f"<small>{escape(note)}</small></li>"
    )


def _figure_html(path: Path, caption: str, width: int) -> str:
    data = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return (
        f'<figure style="max-width:{width}rem"><img alt="{escape(caption)}" src="{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _budget_html(c: "Comparison", step: int) -> str:
    j = c.steps.index(step)
    gaps = (*c.gaps, TOTAL)
    rows = []
    for i, width in enumerate(c.widths):
        cells = [gap_cell(c, g, i, j) for g in gaps]
        cells.append(mean_and_error(c.measures["drift"][i, :, j]))
        status = c.verdicts[width, step].status
        verdict = f'<td class="{status}">{escape(verdict_text(c, width, step))}</td>'
        rows.append(row([row_name(c, width), *cells]) + verdict)
    heads = ["" if c.theory is None else "width", *(cause(g) for g in gaps)]
    heads += ["kernel drift", "verdict"]
    return f"<h3>Step {step}, time {c.times[j]:.4g}</h3>{table(heads, rows)}"


def _meanings_html(c: "Comparison") -> str:
    terms = [f"<dt>{cause(g)}</dt><dd>{escape(GAP_TEXT[g])}</dd>" for g in (*c.gaps, TOTAL)]
    terms += [f"<dt>{t}</dt><dd>{escape(GAP_TEXT[t])}</dd>" for t in ("kernel drift", "verdict")]
    return f"<dl>{''.join(terms)}</dl>"


def _settings_html(c: "Comparison", command: str | None) -> str:
    s = c.settings
    rates = ", ".join(
        f"{rate:.4g} (width {w})"
        for w, rate in zip(c.widths, s["learning_rate_of_width"], strict=True)
    )
    trained = "full-batch gradient descent"
    if s["optimizer"]:
        batch = s["batch_size"]
        trained = f"mini-batches of {batch}" if batch else "full batches"
        trained += ", with the optimizer that was given"
    entries = {
        "command": command,
        "model": s.get("model"),
        "parameterization": s["parameterization"],
        "widths": None if c.theory is None else ", ".join(map(str, c.widths)),
        "output scale alpha": s.get("alpha"),
        "loss": s.get("loss"),
        "seeds": f"{len(c.seeds)} for each width (key {s['key']})",
        "error bars": f"over {s.get('error_bars', 'seeds')}",
        "data": f"{s['train']} training and {s['test']} test examples",
        "steps": f"{c.steps[-1]}, compared after {', '.join(map(str, c.steps))}",
        "learning rate": f"{s['learning_rate']:.4g} in units of NTK parameterization",
        "pace of gradient descent": s.get("pace"),
        "stability limit": f"{s['stability_limit']:.4g}, 2 / lambda_max in the same units",
        "rates of the runs": None if c.theory is None else rates,
        "trained with": trained,
        "tolerance, confidence": f"{c.tolerance:g}, {c.confidence:g}",
        "precision": s.get("dtype"),
        "written with": f"ntk_lab {version('ntk_lab')}, jax {version('jax')}",
    }
    rows = [
        f"<th scope=row>{escape(name)}</th><td>{escape(str(value))}</td>"
        for name, value in entries.items()
        if value is not None
    ]
    if c.theory is None:
        return table([], rows)
    network = escape(_network(c))
    return f"{table([], rows)}<h3>Network</h3><pre>{network}</pre>"


def _network(c: "Comparison") -> str:
    """The architecture as Python; as JSON where a module of it is not known here."""
    from ntk_lab.nn import from_json

    try:
        return repr(from_json(c.settings["net"]).with_width(c.widths[0]))
    except (InputError, KeyError, TypeError, ValueError):
        return c.settings["net"]
