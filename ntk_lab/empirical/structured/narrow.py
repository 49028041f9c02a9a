"""Leave out the parts of intermediate arrays that cannot reach the output.

A network that is read out at its last position computes, in its last block, every position of
the queries and of the feed-forward layers for nothing. Going backward through a flat list of
operations, each array gets the box (an interval an axis) that later operations need; the list is
then traced again on arrays of that size. Operations without a rule need all of their operands.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from ntk_lab.empirical.structured.trace import bind, flatten, is_literal

Box = tuple[tuple[int, int], ...]

_ENTRIES = """
abs add and atan2 cbrt ceil clamp convert_element_type copy copy_p cos cosh div eq erf erf_inv erfc
exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p log2 logistic lt max min mul name ne
neg nextafter not one_minus_square or pow real imag reduce_precision rem round rsqrt select_n sign
sin sinh sqrt square stop_gradient sub tan tanh xor
"""
_REDUCED = "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin"
ELEMENTWISE = frozenset(_ENTRIES.split())
_REDUCTIONS = frozenset(_REDUCED.split())


class Narrowing(NamedTuple):
    """What one operation needs of its operands, and how it is computed from that."""

    operands: Sequence[Box | None]
    produced: Box
    compute: Callable[[Sequence[Any]], Any]


def narrowed(closed: Any, consts: Sequence[Any], args: Sequence[Any]) -> Any:
    """The same function with every array cut to what reaches its outputs."""
    jaxpr = closed.jaxpr
    needs, plans = _needs(jaxpr)

    def run(*values):
        env: dict[Any, tuple[Any, Box]] = {}
        known = zip(jaxpr.constvars, closed.consts, strict=True)
        for var, value in [*known, *zip(jaxpr.invars, values, strict=True)]:
            env[var] = (value, _whole(var))

        def read(atom, box):
            if is_literal(atom):
                return atom.val
            value, held = env[atom]
            return _cut(value, held, box)

        for equation in jaxpr.eqns:
            plan = plans.get(id(equation))
            if plan is None:
                continue
            operands = [read(a, b) for a, b in zip(equation.invars, plan.operands, strict=True)]
            results = plan.compute(operands)
            for var, result in zip(equation.outvars, results, strict=True):
                held = plan.produced if len(equation.outvars) == 1 else _whole(var)
                need = needs.get(var)
                if need is not None:
                    env[var] = (_cut(result, held, need), need)
        return [read(v, _whole(v)) for v in jaxpr.outvars]

    return jax.make_jaxpr(run)(*consts, *args)


def _needs(jaxpr: Any) -> tuple[dict[Any, Box], dict[int, Narrowing]]:
    needs: dict[Any, Box] = {v: _whole(v) for v in jaxpr.outvars if not is_literal(v)}
    plans: dict[int, Narrowing] = {}
    for equation in reversed(jaxpr.eqns):
        boxes = [needs.get(v) for v in equation.outvars]
        if all(b is None for b in boxes) and not equation.effects:
            continue
        plan = _narrowing(equation, boxes)
        plans[id(equation)] = plan
        for atom, box in zip(equation.invars, plan.operands, strict=True):
            if not is_literal(atom) and box is not None:
                needs[atom] = _hull(needs.get(atom), box)
    return needs, plans


def _narrowing(equation: Any, boxes: Sequence[Box | None]) -> Narrowing:
    box = boxes[0]
    name = equation.primitive.name
    if len(boxes) == 1 and box is not None and box != _whole(equation.outvars[0]):
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
    whole = [None if is_literal(a) else _whole(a) for a in equation.invars]
    return Narrowing(whole, _whole(equation.outvars[0]), lambda v: bind(equation, v))


def _elementwise(equation: Any, box: Box) -> Narrowing:
    shape = equation.outvars[0].aval.shape

    def part(atom):
        if len(atom.aval.shape) != len(shape):
            return _whole(atom)
        # Axes of length one are repeated.
        sizes = zip(box, atom.aval.shape, shape, strict=True)
        return tuple(b if n == m else (0, n) for b, n, m in sizes)

    def compute(values):
        # A literal with axes would keep its shape.
        pairs = zip(values, equation.invars, strict=True)
        cut = [_cut(v, _whole(a), part(a)) if is_literal(a) else v for v, a in pairs]
        return bind(equation, cut)

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
        return [lax.broadcast_in_dim(values[0], _sizes(box), axes)]

    return Narrowing([operand], box, compute)


def _reshape(equation: Any, box: Box) -> Narrowing | None:
    """Groups of axes with equal products; a group that changes is needed in full."""
    if equation.params.get("dimensions") is not None or len(equation.invars) > 1:
        return None
    source, target = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    if math.prod(source) == 0:
        return None
    operand, produced = [], []
    for left, right in _groups(source, target):
        inner = [a for a in left if source[a] != 1], [a for a in right if target[a] != 1]
        kept = box[inner[1][0]] if len(inner[0]) == len(inner[1]) == 1 else None
        operand += [kept if kept and a in inner[0] else (0, source[a]) for a in left]
        produced += [kept if kept and a in inner[1] else (0, target[a]) for a in right]
    return Narrowing(
        [tuple(operand)],
        tuple(produced),
        lambda values: [lax.reshape(values[0], _sizes(produced))],
    )


def _groups(source: Sequence[int], target: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of axes of both shapes that hold the same number of entries."""
    groups, i, j = [], 0, 0
    while i < len(source) or j < len(target):
        left, right, a, b = [], [], 1, 1
        while True:
            if (a < b or not left) and i < len(source):
                left.append(i)
                a, i = a * source[i], i + 1
            elif (b < a or not right) and j < len(target):
                right.append(j)
                b, j = b * target[j], j + 1
            else:
                break
        if a != b and groups:  # only trailing axes of size one can be left over
            raise AssertionError("shapes of a reshape must hold the same number of entries")
        groups.append((left, right))
    return groups


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
    whole = (0, equation.outvars[0].aval.shape[axis])
    produced = (*box[:axis], whole, *box[axis + 1 :])
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
    if not _acts_on_entries(equation):
        return None
    filling = [(lo, n - hi, 0) for (lo, hi), n in zip(box, shape, strict=True)]

    def compute(values):
        full = [
            lax.pad(v, jnp.zeros((), v.dtype), filling) if a.aval.shape == shape else v
            for v, a in zip(values, atoms, strict=True)
        ]
        (result,) = bind(equation, full)
        return [_cut(result, _whole(equation.outvars[0]), box)]

    return Narrowing([box if a.aval.shape == shape else _whole(a) for a in atoms], box, compute)


def _acts_on_entries(equation: Any) -> bool:
    def derivative(primals, tangents):
        (value,), (change,) = jax.jvp(lambda *p: bind(equation, p), primals, tangents)
        return [value, change]

    avals = [jax.ShapeDtypeStruct(a.aval.shape, a.aval.dtype) for a in equation.invars]
    if any(not jnp.issubdtype(a.dtype, jnp.floating) for a in avals):
        return False
    flat, _ = flatten(derivative, tuple(avals), tuple(avals))
    shape, name = equation.outvars[0].aval.shape, equation.params.get("name")
    return all(_on_entries(e, shape, name) for e in flat.jaxpr.eqns)


def _on_entries(equation: Any, shape: tuple[int, ...], name: str | None) -> bool:
    if any(v.aval.shape not in ((), shape) for v in [*equation.invars, *equation.outvars]):
        return False
    if equation.primitive.name == "custom_jvp_call":
        # A rule evaluates the function itself, which has the same rule again.
        body = equation.params["call_jaxpr"]
        flat, _ = flatten(core.jaxpr_as_fun(body), *body.in_avals)
        same = equation.params.get("name") == name
        return same and all(_on_entries(e, shape, name) for e in flat.jaxpr.eqns)
    return equation.primitive.name in ELEMENTWISE or _repeats_a_scalar(equation)


def _repeats_a_scalar(equation: Any) -> bool:
    return equation.primitive.name == "broadcast_in_dim" and not equation.invars[0].aval.shape


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


def _whole(atom: Any) -> Box:
    return tuple((0, n) for n in getattr(atom.aval, "shape", ()))


def _hull(a: Box | None, b: Box) -> Box:
    if a is None:
        return b
    return tuple((min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a, b, strict=True))


def _sizes(box: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(hi - lo for lo, hi in box)


def _cut(value: Any, held: Box, box: Box | None) -> Any:
    if box is None or box == held:
        return value
    starts = [lo - h[0] for (lo, _), h in zip(box, held, strict=True)]
    stops = [hi - h[0] for (_, hi), h in zip(box, held, strict=True)]
    return lax.slice(value, starts, stops)
