"""Moments of combinations of independent processes."""

from dataclasses import replace

from ntk_lab.errors import InputError
from ntk_lab.kernel.layout import Full, Layout
from ntk_lab.kernel.state import Features


def sum_of_independent(a: Features, b: Features) -> Features:
    """State of the sum, of the kind of ``a``: covariances and NTKs add up."""
    _check_layouts(a, b)
    return replace(a, cov=a.cov.add(b.cov), ntk=a.ntk + b.ntk, layout=_added(a.layout, b.layout))


def _added(a: Layout, b: Layout) -> Layout:
    if isinstance(a, Full) and isinstance(b, Full) and a.own is not None and b.own is not None:
        return replace(a, own=a.own.add(b.own))
    return a


def _check_layouts(a: Features, b: Features) -> None:
    if type(a.layout) is not type(b.layout) or a.layout.shape != b.layout.shape:
        raise InputError(
            f"branches end with positions {a.layout.shape} ({type(a.layout).__name__}) and "
            f"{b.layout.shape} ({type(b.layout).__name__}), which cannot be combined: make their "
            "shapes agree."
        )
