"""Moments of combinations of independent processes."""

from dataclasses import replace

from ntk_lab.errors import InputError
from ntk_lab.kernel.layout import Full
from ntk_lab.kernel.state import Features


def sum_of_independent(a: Features, b: Features) -> Features:
    """State of the sum, of the kind of ``a``: covariances and NTKs add up."""
    _check_layouts(a, b)
    layout = a.layout
    if isinstance(layout, Full) and layout.own is not None:
        layout = replace(layout, own=layout.own.add(b.layout.own))
    return replace(a, cov=a.cov.add(b.cov), ntk=a.ntk + b.ntk, layout=layout)


def _check_layouts(a: Features, b: Features) -> None:
    if type(a.layout) is not type(b.layout) or a.layout.shape != b.layout.shape:
        raise InputError(
            f"branches end with positions {a.layout.shape} ({type(a.layout).__name__}) and "
            f"{b.layout.shape} ({type(b.layout).__name__}), which cannot be combined: make their "
            "shapes agree."
        )
