"""What compiled loops over vectors need of each vector alone, layer by layer (extra: numba).

All of it is computed in double precision. See ``native_vectors`` and ``native_attention``.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ntk_lab.kernel.native_steps import Erf, Filter, Fork, Join, Step, TwoSlopes

# Where a matrix product leaves fewer digits of the angle than the rest of the computation.
THRESHOLD = {4: 1e-3, 8: 1e-5}


class Side:
    """Variances of some vectors, and the constants of each operation that they have been through.

    ``ntk`` is the NTK of each vector with itself.
    """

    def __init__(self, var: np.ndarray):
        self.var, self.ntk = var, np.zeros_like(var)
        self._rows: list[list[np.ndarray]] = []

    def record(self, *rows: np.ndarray) -> None:
        """Keep the constants of one operation."""
        self._rows.append(list(rows))

    def constants(self, dtype: np.dtype) -> np.ndarray:
        """All constants, and the standard deviations at the end: ``(ops + 1, 5, n)``."""
        everything = np.zeros((len(self._rows) + 1, 5, len(self.var)), dtype)
        for place, rows in zip(everything, [*self._rows, [np.sqrt(self.var)]], strict=True):
            for i, row in enumerate(rows):
                place[i] = row
        return everything


def named_operations(
    steps: Sequence[Step], side: Side, gaussian: bool = False
) -> tuple[list[str], list[tuple]] | None:
    """Names of the operations and their numbers; None where these loops do not apply.

    Walks the vectors of a side through all layers and records their constants. Activations apply
    to Gaussian processes only (``gaussian``: whether the vectors are such from the start), and a
    standard deviation of zero has no NTK to be measured by it.
    """
    names, numbers = [], []
    stack: list[tuple[np.ndarray, np.ndarray, bool]] = []
    for step in steps:
        if isinstance(step, TwoSlopes | Erf) and not gaussian:
            return None
        if isinstance(step, Filter):
            if not _affine(step, side):
                return None
            plain = step.weight_tangent == step.signal and step.bias_tangent == step.constant
            entry = "plain_affine" if plain else "affine", (0.0, 0.0)
        elif isinstance(step, TwoSlopes):
            mean = (step.a**2 + step.b**2) / 2
            side.var, side.ntk = mean * side.var, mean * side.ntk
            side.record()
            entry = "two_slopes", ((step.a - step.b) ** 2 / (2 * mean), 0.0)
        elif isinstance(step, Erf):
            _erf(step, side)
            entry = "erf", (step.a**2, step.c**2)
        elif isinstance(step, Fork):
            stack.append((side.var, side.ntk, gaussian))
            side.record()
            entry = "fork", (0.0, 0.0)
        else:
            assert isinstance(step, Join)
            *skip, was_gaussian = stack.pop()
            _join(skip, side)
            gaussian = gaussian and was_gaussian
            entry = "join", (0.0, 0.0)
        if isinstance(step, Filter | TwoSlopes | Erf):
            gaussian = isinstance(step, Filter)
        names.append(entry[0])
        numbers.append(entry[1])
    return names, numbers


def _affine(step: Filter, side: Side) -> bool:
    """Constants of a layer with weights; False where its NTK cannot be measured by its norm."""
    before = np.sqrt(side.var)
    var = step.signal * side.var + step.constant
    after = np.sqrt(var)
    if step.bias_tangent > 0 and (after == 0).any():
        return False
    inverse = np.divide(1, after, out=np.zeros_like(after), where=after > 0)
    turn = np.arctan2(math.sqrt(step.constant), math.sqrt(step.signal) * before)
    weight, bias = math.sqrt(step.weight_tangent), math.sqrt(step.bias_tangent)
    halves = np.sin(turn / 2), np.cos(turn / 2)
    side.record(np.cos(turn), *halves, weight * before * inverse, bias * inverse)
    tangent = step.weight_tangent * side.var + step.bias_tangent
    side.ntk = step.signal * side.ntk + tangent
    side.var = var
    return True


def _erf(step: Erf, side: Side) -> None:
    double = 2 * step.b**2 * side.var
    turn = np.arctan(np.sqrt(double))
    var = step.a**2 * 2 / np.pi * np.arctan2(double, np.sqrt(1 + 2 * double)) + step.c**2
    inverse = np.divide(1, np.sqrt(var), out=np.zeros_like(var), where=var > 0)
    slope = abs(step.a * step.b) * math.sqrt(4 / math.pi) * np.sqrt(side.var) * np.cos(turn)
    sine, square = np.sin(turn), np.cos(turn) ** 2
    side.record(sine, square, inverse, slope * inverse, square / (2 + 2 * sine))
    side.ntk = side.ntk * step.a**2 * 4 * step.b**2 / math.pi / np.sqrt(1 + 2 * double)
    side.var = var


def _join(skip: Sequence[Any], side: Side) -> None:
    turn = np.arctan2(np.sqrt(side.var), np.sqrt(skip[0]))
    side.record(np.cos(turn), np.sin(turn), np.sin(turn / 2), np.cos(turn / 2))
    side.var, side.ntk = side.var + skip[0], side.ntk + skip[1]


def specialized(
    names: list[str], numbers: np.ndarray, acute: bool = False
) -> tuple[list[int], bool]:
    """Operations by number: the cheaper ones where all angles are known to be acute.

    ``acute`` says whether they are in the beginning, and comes back for the end.
    """
    from ntk_lab.kernel import native_vector_loops as loops

    stack, ops = [], []
    for name, (kappa, _) in zip(names, numbers, strict=True):
        if name == "plain_affine":
            name = "acute_affine" if acute else name
        elif name == "two_slopes":
            name = "relu" if acute and kappa == 1 else name
            acute = acute or kappa >= 1
        elif name == "fork":
            stack.append(acute)
        elif name == "join":
            acute = stack.pop() and acute
        ops.append(getattr(loops, name.upper()))
    return ops, acute
