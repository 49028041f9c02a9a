"""Layers whose channels reach the outputs one by one, as before global pooling and a dense readout.

Between such a layer and a vector ``z`` of one entry a channel, every operation keeps channels apart
(activations, frozen normalization, skip connections, pooling over positions). Then the cotangents
of the layer are products, ``D[c, t, o] = B[c, o] E[t, o]``: ``B`` is the cotangent of ``z``, and
``E`` comes from one backward pass with ones at ``z``, whatever the number of outputs. The gradients
``B[c, o] g[o, i]`` need ``g = sum_t E[t, o] A[t, i]`` only, a ``C``-th of all gradients.
"""

from collections.abc import Sequence
from typing import Any

from ntk_lab.empirical.structured.boxes import groups
from ntk_lab.empirical.structured.entries import ELEMENTWISE, acts_on_entries
from ntk_lab.equations import is_literal

_REDUCTIONS = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_prod"})
_WINDOWS = frozenset(
    {"reduce_window_sum", "reduce_window_max", "reduce_window_min", "cumsum", "cumprod"}
)


def readout_of(jaxpr: Any, place: Any, axis: int) -> Any:
    """The variable ``z`` that the channels of ``place``, along ``axis``, reach one by one.

    None if there is none.
    """
    at: dict[Any, int] = {place: axis}
    exits = []
    for equation in jaxpr.eqns:
        held = [a for a in equation.invars if not is_literal(a) and a in at]
        if not held:
            continue
        out = _axis(equation, [None if is_literal(a) else at.get(a) for a in equation.invars])
        if out is None:
            exits += held
            if any(v is not exits[0] for v in exits):
                return None
        else:
            at[equation.outvars[0]] = out
    exits += [v for v in jaxpr.outvars if not is_literal(v) and v in at]
    if not exits or any(v is not exits[0] for v in exits) or exits[0] is place:
        return None
    shape = exits[0].aval.shape
    alone = all(n == 1 for a, n in enumerate(shape) if a != at[exits[0]])
    return exits[0] if alone else None


def _axis(equation: Any, axes: Sequence[int | None]) -> int | None:
    """The axis of channels of the result; None if they mix or cannot be followed."""
    if len(equation.outvars) != 1 or equation.effects:
        return None
    name, settings, out = equation.primitive.name, equation.params, equation.outvars[0].aval
    held = {a for a in axes if a is not None}
    if len(held) != 1:
        return None
    (axis,) = held
    if name in ELEMENTWISE or name == "add_any":
        shapes = [v.aval.shape for v in equation.invars]
        alike = all(len(s) == len(out.shape) or not s for s in shapes)
        return axis if alike and not settings.get("dimensions") else None
    if name == "custom_jvp_call":
        shapes = [v.aval.shape for v in equation.invars]
        return axis if set(shapes) <= {(), out.shape} and acts_on_entries(equation) else None
    if axes[0] is None or any(a is not None for a in axes[1:]):
        return None
    shape = equation.invars[0].aval.shape
    if name in _REDUCTIONS:
        gone = settings["axes"]
        return None if axis in gone else axis - sum(a < axis for a in gone)
    if name in _WINDOWS:
        window = settings.get("window_dimensions")
        apart = settings.get("axis") != axis if window is None else _whole_steps(settings, axis)
        return axis if apart else None
    return _moved(name, settings, axis, shape, out.shape)


def _whole_steps(settings: Any, axis: int) -> bool:
    """Whether windows are of one entry along an axis."""
    one = [settings["window_dimensions"], settings["window_strides"], settings["base_dilation"]]
    return all(s[axis] == 1 for s in one) and settings["padding"][axis] == (0, 0)


def _moved(
    name: str, settings: Any, axis: int, source: Sequence[int], target: Sequence[int]
) -> int | None:
    if name == "broadcast_in_dim":
        place = settings["broadcast_dimensions"][axis]
        return place if target[place] == source[axis] else None
    if name == "transpose":
        return list(settings["permutation"]).index(axis)
    if name == "squeeze":
        return axis - sum(a < axis for a in settings["dimensions"])
    if name == "reshape" and settings.get("dimensions") is None:
        for left, right in groups(source, target):
            kept = [a for a in right if target[a] == source[axis]]
            if axis in left and all(source[a] == 1 for a in left if a != axis) and kept:
                return kept[0]
        return None
    if name in ("slice", "pad", "rev"):
        whole = source[axis] == target[axis] and axis not in settings.get("dimensions", ())
        return axis if whole and _starts_whole(name, settings, axis) else None
    return None


def _starts_whole(name: str, settings: Any, axis: int) -> bool:
    return name != "pad" or settings["padding_config"][axis] == (0, 0, 0)
