"""Sections of the HTML report beside the error budget: scaling, horizons, ensembles."""

from html import escape
from typing import TYPE_CHECKING

from ntk_lab.compare.budget import TOTAL
from ntk_lab.compare.horizon import THEORY_SOURCE
from ntk_lab.compare.markup import cause, row, table
from ntk_lab.compare.text import (
    exponent_cells,
    horizon_text,
    required_width_text,
    row_name,
)

if TYPE_CHECKING:
    from ntk_lab.compare.comparison import Comparison


def lead(c: "Comparison") -> str:
    """What the page is about."""
    if c.theory is None:
        return (
            "The verdict after the last step: is the model, as it was trained, within the "
            "tolerance of kernel regression with its own neural tangent kernel at the start?"
        )
    return (
        "The verdict for each width after the last step: is the network, as it was trained, within "
        "the tolerance of what its infinite-width neural tangent kernel says?"
    )


def scaling_section(c: "Comparison") -> str:
    """Exponents and required width; nothing for a model without a width."""
    if c.theory is None:
        return ""
    rows = [f"<td>{cause(name)}</td>" + row(exponent_cells(e)) for name, e in c.exponents().items()]
    heads = ["gap", "exponent", f"{c.confidence:.0%} interval", "theory"]
    needed = required_width_text(c.required_width(), c.confidence)
    return (
        "<h2>Scaling with width</h2><p>Each gap fitted by a power of the width at the last step, "
        f"beside what theory says.</p>{table(heads, rows)}<p>Width for a total gap of "
        f"{c.tolerance:g} at the last step: <b>{escape(needed)}</b></p>"
    )


def horizon_theory(c: "Comparison") -> str:
    """What theory says of it, in one sentence."""
    if c.theory is None:
        return f"It grows in proportion to the output scale, or faster ({THEORY_SOURCE})."
    if not c.theory.kernel_limit:
        return "Here features move at every width, so that no width makes it longer."
    return (
        "That of feature learning grows at least as the output scale, here as the square root of "
        f"the width ({THEORY_SOURCE})."
    )


def horizon_table(c: "Comparison") -> str:
    """Horizon of each gap at each width."""
    names = (TOTAL, *c.gaps)
    rows = [
        row([row_name(c, width), *(horizon_text(c, width, gap) for gap in names)])
        for width in c.widths
    ]
    return table(["" if c.theory is None else "width", *(cause(g) for g in names)], rows)


def ensemble_section(c: "Comparison") -> str:
    """The distribution over initializations, where it is predicted."""
    fits = [(width, c.ensemble(width)) for width in c.widths]
    rows = [
        row(
            [
                row_name(c, width),
                f"{fit.z:+.1f}",
                f"{fit.spread:.2f} +- {fit.spread_error:.2f}",
                f"{fit.coverage:.0%} +- {fit.coverage_error:.0%}",
                "yes" if fit.calibrated(c.confidence) else "no",
            ]
        )
        for width, fit in fits
        if fit is not None
    ]
    if not rows:
        return ""
    heads = [
        "width",
        "z of the mean",
        "spread / predicted",
        "inside their 90% interval",
        "as predicted",
    ]
    return (
        "<h2>Over initializations</h2><p>Networks of different seeds against the predicted "
        "Gaussian process (arXiv:1902.06720) at the last step: how many standard errors their mean "
        "lies from the predicted one, along the predicted movement; their mean square deviation "
        f"over the predicted variance; how many outputs are inside their interval.</p>"
        f"{table(heads, rows)}"
    )
