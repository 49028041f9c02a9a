"""Linear pieces of ReLU networks along a line: counted exactly, and expected at initialization."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ntk_lab.errors import InputError
from ntk_lab.nn import Dense, Relu, Sequential
from ntk_lab.theory.affine import affine_steps, point


class LineRegions(NamedTuple):
    """A network along ``start + t (end - start)``.

    Attributes
    ----------
    breaks
        Every ``t`` in (0, 1) at which a neuron switches, in order, float64 ``(m,)``.
    layers
        The number of the Relu (from 0) that switches at each.
    slopes
        Derivative of the outputs in ``t`` on each piece, ``(m + 1, outputs)``.
    """

    breaks: np.ndarray
    layers: np.ndarray
    slopes: np.ndarray

    @property
    def regions(self) -> int:
        """Activation regions that the line crosses: one more than breaks at distinct places."""
        return len(np.unique(self.breaks)) + 1

    def pieces(self, tolerance: float = 1e-9) -> int:
        """Linear pieces of the function: neighbours whose slopes differ, relative to the largest.

        At most `regions`: a neuron may switch without reaching the output.
        """
        scale = np.abs(self.slopes).max(initial=0)
        long = np.diff(np.concatenate([[0.0], self.breaks, [1.0]])) > 0
        slopes = self.slopes[long]
        change = np.abs(np.diff(slopes, axis=0)).max(axis=1, initial=0)
        return int((change > tolerance * scale).sum()) + 1


def regions_on_line(net: Sequential, params: Any, start: ArrayLike, end: ArrayLike) -> LineRegions:
    """Count the linear regions of a ReLU network along a segment, exactly.

    Layer by layer, the values at all breaks so far describe the function along the line; where two
    neighbours have values of different signs at a Relu, a new break lies between them.

    Parameters
    ----------
    net, params
        A ``Sequential`` of ``Dense`` and ``Relu`` and its parameters.
    start, end
        The ends, inputs of shape ``(d,)``.

    Returns
    -------
    LineRegions
        In float64 whatever the dtype of the parameters. A neuron that only touches zero does not
        switch.

    Raises
    ------
    InputError
        Other layers, ends that do not fit.

    Notes
    -----
    Time and memory of order regions x neurons. Compare with :func:`expected_regions_on_line`.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> ntk.theory.regions_on_line(*ntk.theory.sawtooth(5), [0.0], [1.0]).pieces()
    32
    """
    steps = affine_steps(net, params)
    ends = np.stack([point("start", start, steps), point("end", end, steps)])
    t, values = np.array([0.0, 1.0]), ends
    origin, number = np.array([-1, -1]), 0
    for step in steps:
        if step is not None:
            values = values @ step[0] + step[1]
            continue
        t, values, origin = _split(t, values, origin, number)
        values, number = np.maximum(values, 0), number + 1
    length = np.diff(t)[:, None]
    slopes = np.diff(values, axis=0) / np.where(length > 0, length, 1)
    return LineRegions(t[1:-1], origin[1:-1], slopes)


def _split(
    t: np.ndarray, values: np.ndarray, origin: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Insert a break wherever a neuron changes its sign between neighbours."""
    left, right = values[:-1], values[1:]
    piece, unit = np.nonzero(left * right < 0)
    a, b = left[piece, unit], right[piece, unit]
    share = a / (a - b)
    between = left[piece] + share[:, None] * (right[piece] - left[piece])
    between[np.arange(len(unit)), unit] = 0  # exactly, so that it does not switch again
    at = t[piece] + share * (t[piece + 1] - t[piece])
    order = np.argsort(np.concatenate([t, at]), kind="stable")
    # Ties with the ends of a piece, by rounding, would put breaks beyond the last point.
    first, last = order == 0, order == len(t) - 1
    order = np.concatenate([[0], order[~first & ~last], [len(t) - 1]])
    whole = np.concatenate([values, between])[order]
    marks = np.concatenate([origin, np.full(len(at), number)])[order]
    return np.concatenate([t, at])[order], whole, marks


def expected_regions_on_line(net: Sequential, start: ArrayLike, end: ArrayLike) -> np.ndarray:
    """Expected number of breaks along a segment at initialization, by layer of Relu.

    Pre-activations of wide layers are Gaussian processes along the line, whose zeros Rice's
    formula counts: each neuron has on average ``angle / pi`` of them, with ``angle`` that which
    the line sweeps out as seen in the feature space of its layer. With ``q(t)`` the variance of
    pre-activations, a quadratic function ``A t^2 + 2 B t + C``::

        angle = int_0^1 sqrt(A C - B^2) / q(t) dt
        first layer:  A = w^2 |v|^2 / d,  B = w^2 <x, v> / d,  C = w^2 |x|^2 / d + b^2
        next layer:   A' = w^2 A / 2,     B' = w^2 B / 2,      C' = w^2 C / 2 + b^2

    with ``x = start``, ``v = end - start``, since a Relu passes half of all second moments. Exact
    for the first layer at any width, and for further layers in the limit of wide layers before
    them. Without biases every layer has the same angle: regions grow with the number of neurons,
    wherever they are, and not exponentially with depth (arXiv:1901.09021).

    Parameters
    ----------
    net
        ``Dense`` and ``Relu`` in turns, NTK parameterization.
    start, end
        The ends, ``(d,)``.

    Returns
    -------
    np.ndarray
        Float64, one number for each Relu: its neurons times ``angle / pi``. One more than their
        sum is the expected number of regions.

    Raises
    ------
    InputError
        Other layers or parameterizations, ends that do not fit.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> layers = [ntk.nn.Dense(40, 2**0.5), ntk.nn.Relu()] * 3
    >>> net = ntk.nn.Sequential(*layers, ntk.nn.Dense(1))
    >>> ntk.theory.expected_regions_on_line(net, [1.0, 0.0], [0.0, 1.0])  # a quarter turn
    array([20., 20., 20.])
    """
    x, end = (point(name, v, []) for name, v in (("start", start), ("end", end)))
    if x.shape != end.shape:
        raise InputError(f"start has shape {x.shape} and end {end.shape}; they must be equal.")
    v, dense = end - x, None
    a, b, c = (float(m @ n) / len(x) for m, n in ((v, v), (x, v), (x, x)))
    found, scale = [], 1.0
    for layer in net.layers:
        if isinstance(layer, Dense) and dense is None and layer.parameterization == "ntk":
            dense, factor = layer, scale * layer.w_std**2
            a, b, c = factor * a, factor * b, factor * c + (layer.b_std or 0.0) ** 2
        elif isinstance(layer, Relu) and dense is not None:
            found.append(dense.width * _angle(a, b, c) / np.pi)
            dense, scale = None, 0.5
        else:
            raise InputError(
                f"{layer!r} does not fit here: expected Dense (NTK parameterization) and Relu in "
                "turns."
            )
    return np.array(found)


def _angle(a: float, b: float, c: float) -> float:
    """Integral of ``sqrt(a c - b^2) / (a t^2 + 2 b t + c)`` over [0, 1], an angle in a plane."""
    root = np.sqrt(max(a * c - b * b, 0.0))
    # That between the vectors (b, root) and (a + b, root), of the ends in that plane.
    return float(np.arctan2(a * root, root * root + b * (a + b)))
