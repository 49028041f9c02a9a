"""How each operation is computed on a part of its result, and what it then needs."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from ntk_lab.empirical.structured.boxes import Box, cut, groups, sizes, whole
from ntk_lab.empirical.structured.entries import ELEMENTWISE, acts_on_entries
from ntk_lab.equations import bind, is_literal

_REDUCED = "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin"
_REDUCTIONS = frozenset(_REDUCED.split())


class Narrowing(NamedTuple):
    """What one operation needs of its operands, and how it is computed from that."""

    operands: Sequence[Box | None]
    produced: Box
    compute: Callable[[Sequence[Any]], Any]


def narrowing(equation: Any, boxes: Sequence[Box | None]) -> Narrowing:
    """For the parts of its results that are needed; None for a result that is not."""
    box = boxes[0]
    name = equation.primitive.name
    if len(boxes) == 1 and box is not None and box != whole(equation.outvars[0]):
        if name in ELEMENTWISE:
            return _elementwise(equation, box)
        rule = _RULES.get("reduce" if name in _REDUCTIONS else name)
        plan = rule(equation, box) if rule is not None else None
        if plan is not None:
            return plan
    if name == "slice" and box is not None:
        plan = _slice(equation, box)
        if plan is not None:
            return plan
    operands = [None if is_literal(a) else whole(a) for a in equation.invars]
    return Narrowing(operands, whole(equation.outvars[0]), lambda v: bind(equation, v))


def _elementwise(equation: Any, box: Box) -> Narrowing:
    shape = equation.outvars[0].aval.shape

    def part(atom):
        if len(atom.aval.shape) != len(shape):
            return whole(atom)
        # Axes of length one are repeated.
        lengths = zip(box, atom.aval.shape, shape, strict=True)
        return tuple(b if n == m else (0, n) for b, n, m in lengths)

    def compute(values):
        # A literal with axes would keep its shape.
        pairs = zip(values, equation.invars, strict=True)
        parts = [cut(v, whole(a), part(a)) if is_literal(a) else v for v, a in pairs]
        return bind(equation, parts)

    operands = [None if is_literal(a) else part(a) for a in equation.invars]
    return Narrowing(operands, box, compute)


def _slice(equation: Any, box: Box) -> Narrowing | None:
    start, strides = equation.params["start_indices"], equation.params["strides"]
    if strides is not None and any(s != 1 for s in strides):
        return None
    moved = tuple((s + lo, s + hi) for s, (lo, hi) in zip(start, box, strict=True))
    return Narrowing([moved], box, list)


def _broadcast(equation: Any, box: Box) -> Narrowing | None:
    source = equation.invars[0]
    axes = equation.params["broadcast_dimensions"]
    shape = equation.params["shape"]
    if is_literal(source) and source.aval.shape:
        return None
    if len(equation.invars) > 1:
        return None
    operand = tuple(
        box[axis] if size == shape[axis] else (0, 1)
        for size, axis in zip(source.aval.shape, axes, strict=True)
    )

    def compute(values):
        return [lax.broadcast_in_dim(values[0], sizes(box), axes)]

    return Narrowing([operand], box, compute)


def _reshape(equation: Any, box: Box) -> Narrowing | None:
    """Groups of axes with equal products; a group that changes is needed in full."""
    if equation.params.get("dimensions") is not None or len(equation.invars) > 1:
        return None
    source, target = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    if math.prod(source) == 0:
        return None
    operand, produced = [], []
    for left, right in groups(source, target):
        inner = [a for a in left if source[a] != 1], [a for a in right if target[a] != 1]
        kept = box[inner[1][0]] if len(inner[0]) == len(inner[1]) == 1 else None
        operand += [kept if kept and a in inner[0] else (0, source[a]) for a in left]
        produced += [kept if kept and a in inner[1] else (0, target[a]) for a in right]
    return Narrowing(
        [tuple(operand)],
        tuple(produced),
        lambda values: [lax.reshape(values[0], sizes(produced))],
    )


def _transpose(equation: Any, box: Box) -> Narrowing:
    order = equation.params["permutation"]
    operand = tuple(box[order.index(axis)] for axis in range(len(order)))
    return Narrowing([operand], box, lambda v: [lax.transpose(v[0], order)])


def _squeeze(equation: Any, box: Box) -> Narrowing:
    gone = equation.params["dimensions"]
    rest = iter(box)
    rank = len(equation.invars[0].aval.shape)
    operand = tuple((0, 1) if axis in gone else next(rest) for axis in range(rank))
    return Narrowing([operand], box, lambda v: [lax.squeeze(v[0], gone)])


def _reduce(equation: Any, box: Box) -> Narrowing | None:
    if len(equation.invars) > 1:
        return None
    shape, axes = equation.invars[0].aval.shape, equation.params["axes"]
    rest = iter(box)
    operand = tuple((0, n) if axis in axes else next(rest) for axis, n in enumerate(shape))
    return Narrowing([operand], box, lambda v: bind(equation, v))


def _concatenate(equation: Any, box: Box) -> Narrowing | None:
    axis = equation.params["dimension"]
    if any(is_literal(a) for a in equation.invars):
        return None
    operands: list[Box | None] = [
        (*box[:axis], (0, a.aval.shape[axis]), *box[axis + 1 :]) for a in equation.invars
    ]
    length = (0, equation.outvars[0].aval.shape[axis])
    produced = (*box[:axis], length, *box[axis + 1 :])
    return Narrowing(operands, produced, lambda v: bind(equation, v))


def _dot_general(equation: Any, box: Box) -> Narrowing | None:
    (left, right), (batch1, batch2) = equation.params["dimension_numbers"]
    if any(is_literal(a) for a in equation.invars):
        return None
    boxes, start = [], len(batch1)
    for atom, contracted, batch in (
        (equation.invars[0], left, batch1),
        (equation.invars[1], right, batch2),
    ):
        operand = [(0, n) for n in atom.aval.shape]
        for position, axis in enumerate(batch):
            operand[axis] = box[position]
        for axis in range(len(operand)):
            if axis not in contracted and axis not in batch:
                operand[axis] = box[start]
                start += 1
        boxes.append(tuple(operand))
    return Narrowing(boxes, box, lambda v: bind(equation, v))


def _custom_jvp(equation: Any, box: Box) -> Narrowing | None:
    """An activation with its own derivative: filled up to its size, which does no work when fused.

    Only if neither the function nor its derivative rule looks beyond one entry.
    """
    shape = equation.outvars[0].aval.shape
    atoms = equation.invars
    if any(is_literal(a) or a.aval.shape not in ((), shape) for a in atoms):
        return None
    if not acts_on_entries(equation):
        return None
    filling = [(lo, n - hi, 0) for (lo, hi), n in zip(box, shape, strict=True)]

    def compute(values):
        full = [
            lax.pad(v, jnp.zeros((), v.dtype), filling) if a.aval.shape == shape else v
            for v, a in zip(values, atoms, strict=True)
        ]
        (result,) = bind(equation, full)
        return [cut(result, whole(equation.outvars[0]), box)]

    return Narrowing([box if a.aval.shape == shape else whole(a) for a in atoms], box, compute)


_RULES: dict[str, Callable[[Any, Box], Narrowing | None]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "reduce": _reduce,
    "concatenate": _concatenate,
    "dot_general": _dot_general,
    "custom_jvp_call": _custom_jvp,
}
