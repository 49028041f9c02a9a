"""Boxes: parts of arrays, an interval an axis."""

from collections.abc import Sequence
from typing import Any

from jax import lax

Box = tuple[tuple[int, int], ...]


def whole(atom: Any) -> Box:
    """All of an array."""
    return tuple((0, n) for n in getattr(atom.aval, "shape", ()))


def hull(a: Box | None, b: Box) -> Box:
    """The smallest box around both."""
    if a is None:
        return b
    return tuple((min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a, b, strict=True))


def sizes(box: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Shape of a part."""
    return tuple(hi - lo for lo, hi in box)


def cut(value: Any, held: Box, box: Box | None) -> Any:
    """One part of an array of which another part is held; None for all that is held."""
    if box is None or box == held:
        return value
    starts = [lo - h[0] for (lo, _), h in zip(box, held, strict=True)]
    stops = [hi - h[0] for (_, hi), h in zip(box, held, strict=True)]
    return lax.slice(value, starts, stops)


def groups(source: Sequence[int], target: Sequence[int]) -> list[tuple[list[int], list[int]]]:
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
