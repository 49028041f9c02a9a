"""Operations and bytes of each part, and the form in which it is cheapest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ntk_lab.empirical.structured.factors import SLABS, Mode
from ntk_lab.empirical.structured.program import Part

# Operations of a matrix product that one entry of an elementwise pass costs, roughly.
_ENTRY = 8
# How much slower the many small products of the mixed form are than a large one.
_MIXED = 2


@dataclass(frozen=True)
class Problem:
    """Size of a kernel: examples, cotangents an example, what is asked for, bytes of an entry."""

    n1: int
    n2: int
    symmetric: bool
    outputs: int
    mode: Mode
    itemsize: int

    @property
    def pairs(self) -> float:
        """Pairs of examples whose kernel is computed."""
        return self.n1 * self.n2 * (0.5 if self.symmetric else 1.0)

    @property
    def examples(self) -> int:
        """Examples whose derivatives are computed."""
        return self.n1 if self.symmetric else self.n1 + self.n2


@dataclass(frozen=True)
class Cost:
    """Operations an example and a pair; entries held an example, formed later, used a pair."""

    example: float = 0
    pair: float = 0
    held: float = 0
    late: float = 0
    scratch: float = 0

    def operations(self, problem: Problem) -> float:
        """Floating-point operations for all examples and pairs."""
        return self.example * problem.examples + self.pair * problem.pairs


def cost(part: Part, shape: Sequence[int], problem: Problem) -> Cost:
    """Cost of one part; ``shape`` is that of its parameter."""
    c = problem.outputs
    squared = c * c if problem.mode == "full" else c
    size = 1
    for n in shape:
        size *= n
    if part.kind in ("opaque", "direct"):
        return Cost(_ENTRY * c * size, 2 * squared * size, c * size)
    b, t, i, o = part.sizes
    tokens = part.kind == "tokens"
    factors = b * t * ((1 if tokens else i) + c * o)
    if part.form == "rows":
        form = _ENTRY * c * (t + i) * o if tokens else 2.0 * c * b * t * i * o
        rows = c * b * i * o
        held, late = (rows, 0) if part.early else (factors, c * b * i * -(-o // min(o, SLABS)))
        return Cost(form, 2 * squared * b * i * o, held, late)
    if part.form == "readout":
        held, late = (i * o, 0) if part.early else (t * (i + o), i * -(-o // min(o, SLABS)))
        full = problem.mode == "full"
        pair = _MIXED * 2.0 * (i + squared) * o + _ENTRY * (c * o if full else o)
        return Cost(2.0 * t * i * o, pair, held + c * o, late, c * o if full else o)
    if part.form == "mixed":
        pair = _MIXED * (2.0 * t * t * i + 2.0 * c * t * o * (t + c))
        return Cost(0, pair, factors, 2 * c * t * o)
    similar = t * t * b * (_ENTRY if tokens else 2 * i)
    match problem.mode:
        case "full":
            entries = c * c * t * t
            pair = b * (2 * entries * o + _ENTRY * entries)
        case "trace":
            entries = t * t
            pair = b * (2 * entries * c * o + _ENTRY * entries)
        case _:
            entries = c * t * t
            pair = b * (2 * entries * o + _ENTRY * entries)
    return Cost(0, similar + pair, factors, 0, 2 * entries if t > 1 else 0)


def choose(parts: Sequence[Part], shapes: Sequence[Any], problem: Problem) -> list[Part]:
    """Each part in the form that takes fewer operations; gradients early if that holds less."""
    chosen = []
    for part in parts:
        if part.kind in ("opaque", "direct"):
            chosen.append(part)
            continue
        shape = shapes[part.leaf]
        gram = replace(part, form="gram", early=False)
        forms = [gram, _held_least(replace(part, form="rows"), shape, problem)]
        if part.readout is not None and part.sizes[1] > 1 and problem.mode != "diagonal":
            forms.append(_held_least(replace(part, form="readout"), shape, problem))
        if part.kind == "outer" and problem.mode == "full" and part.sizes[0] == 1 < part.sizes[1]:
            forms.append(replace(part, form="mixed", early=False))
        better = min(forms, key=lambda p: cost(p, shape, problem).operations(problem))
        chosen.append(better)
    return chosen


def _held_least(part: Part, shape: Sequence[int], problem: Problem) -> Part:
    """With gradients formed early where they are smaller than their factors."""
    late, early = replace(part, early=False), replace(part, early=True)
    return early if cost(early, shape, problem).held <= cost(late, shape, problem).held else late


@lru_cache(maxsize=64)
def backward(closed: Any) -> tuple[float, float, float]:
    """Entries of all and of the largest intermediate array of one example, and operations."""
    total, largest, operations = 0.0, 0.0, 0.0
    for equation in closed.jaxpr.eqns:
        size = sum(_size(v.aval) for v in equation.outvars)
        total, largest = total + size, max(largest, size)
        operations += flops(equation)
    return total, largest, operations


def flops(equation: Any) -> float:
    """Operations of one equation: products counted, the rest one an entry."""
    name, out = equation.primitive.name, sum(_size(v.aval) for v in equation.outvars)
    if name == "dot_general":
        contracted = equation.params["dimension_numbers"][0][0]
        shape = equation.invars[0].aval.shape
        for axis in contracted:
            out *= shape[axis]
        return 2.0 * out
    if name == "conv_general_dilated":
        rhs = equation.invars[1].aval.shape
        channels = equation.params["dimension_numbers"].rhs_spec[0]
        return 2.0 * out * _size(equation.invars[1].aval) / rhs[channels]
    inner = 0.0
    for value in equation.params.values():
        body = getattr(value, "jaxpr", value)
        if hasattr(body, "eqns"):
            inner += sum(flops(e) for e in body.eqns)
    return out + inner * equation.params.get("length", 1)


def _size(aval: Any) -> float:
    size = 1.0
    for n in getattr(aval, "shape", ()):
        size *= n
    return size
