"""Linear regions of ReLU networks in a plane, counted exactly."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ntk_lab.errors import InputError
from ntk_lab.nn import Sequential
from ntk_lab.theory.affine import affine_steps, point


class PlaneRegions(NamedTuple):
    """A network on ``origin + a u + b v``, ``0 <= a, b <= 1``.

    Attributes
    ----------
    polygons
        Corners ``(k, 2)`` in ``(a, b)`` of each convex region, in order around it.
    gradients
        Derivatives of the outputs in ``a`` and ``b`` there, ``(regions, 2, outputs)``.
    """

    polygons: list[np.ndarray]
    gradients: np.ndarray

    @property
    def regions(self) -> int:
        """Number of activation regions."""
        return len(self.polygons)


def regions_in_plane(
    net: Sequential,
    params: Any,
    origin: ArrayLike,
    u: ArrayLike,
    v: ArrayLike,
    *,
    largest: int = 200_000,
) -> PlaneRegions:
    """Count the linear regions of a ReLU network in a parallelogram, exactly.

    The network is affine on each polygon; every neuron cuts each polygon along the line where it
    is zero, layer after layer.

    Parameters
    ----------
    net, params
        A ``Sequential`` of ``Dense`` and ``Relu`` and its parameters.
    origin, u, v
        A corner and two sides, ``(d,)`` each.
    largest
        Number of regions beyond which to stop.

    Returns
    -------
    PlaneRegions
        In float64. Slivers thinner than 1e-12 of the sides are not cut off.

    Raises
    ------
    InputError
        Other layers, vectors that do not fit, more than ``largest`` regions.

    Notes
    -----
    Time of order regions x neurons x inputs of a layer. One hidden layer is an arrangement of
    lines: ``1 + lines + crossings`` regions.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(2, 2**0.5), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> params = ({"w": jnp.eye(2)}, (), {"w": jnp.ones((2, 1))})
    >>> sides = [2.0, 0.0], [0.0, 2.0]
    >>> ntk.theory.regions_in_plane(net, params, [-1.0, -1.0], *sides).regions
    4
    """
    steps = affine_steps(net, params)
    rows = [point(name, p, steps) for name, p in (("origin", origin), ("u", u), ("v", v))]
    if len({len(row) for row in rows}) > 1:
        raise InputError("origin, u and v have different lengths; they must be equal.")
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    # A region is its corners and the affine map on it: rows for 1, a and b.
    regions = [(square, np.stack(rows))]
    for step in steps:
        if step is not None:
            weights, bias = step
            shift = np.zeros((3, len(bias)))
            shift[0] = bias
            regions = [(corners, where @ weights + shift) for corners, where in regions]
            continue
        cut: list[tuple[np.ndarray, np.ndarray]] = []
        for corners, where in regions:
            cut += [(part, _rectified(part, where)) for part in _pieces(corners, where)]
            if len(cut) > largest:
                raise InputError(
                    f"there are more than largest={largest} regions; take a smaller part of the "
                    "plane or a smaller network, or allow more."
                )
        regions = cut
    return PlaneRegions([r[0] for r in regions], np.stack([r[1][1:] for r in regions]))


def _values(corners: np.ndarray, where: np.ndarray) -> np.ndarray:
    return where[0] + corners @ where[1:]


def _rectified(corners: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The map after Relu on a polygon in which no neuron switches."""
    return where * (_values(corners.mean(0, keepdims=True), where) > 0)


def _pieces(corners: np.ndarray, where: np.ndarray) -> list[np.ndarray]:
    """The polygon cut along the zeros of every neuron."""
    values = _values(corners, where)
    size = np.abs(where).max(axis=0)
    crossing = (values.min(0) < -1e-12 * size) & (values.max(0) > 1e-12 * size)
    parts = [corners]
    for unit in np.flatnonzero(crossing):
        parts = [new for part in parts for new in _cut(part, where[:, unit])]
    return parts


def _cut(corners: np.ndarray, line: np.ndarray) -> list[np.ndarray]:
    """One polygon, or the two on both sides of ``line . (1, a, b) = 0``."""
    values = line[0] + corners @ line[1:]
    values = np.where(np.abs(values) <= 1e-12 * np.abs(line).max(), 0, values)
    if values.min() >= 0 or values.max() <= 0:
        return [corners]
    sides: tuple[list, list] = ([], [])
    for i, (corner, value) in enumerate(zip(corners, values, strict=True)):
        j = (i + 1) % len(corners)
        for side, sign in zip(sides, (1, -1), strict=True):
            if sign * value >= 0:
                side.append(corner)
        if value * values[j] < 0:
            crossing = corner + value / (value - values[j]) * (corners[j] - corner)
            for side in sides:
                side.append(crossing)
    return [np.array(side) for side in sides]
