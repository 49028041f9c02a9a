"""The loss landscape between and around trained parameters: lines and planes."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from ntk_lab.empirical.ntk import Model, Params
from ntk_lab.errors import InputError
from ntk_lab.losses import Loss
from ntk_lab.train.directions import random_direction
from ntk_lab.train.objective import Objective


@dataclass(frozen=True)
class LossLine:
    """The loss on a straight line between parameters; made by :func:`loss_along_line`.

    Attributes
    ----------
    positions
        0 at the start, 1 at the end, ``(points,)``, float64.
    train, test
        Mean losses there, ``(points,)``, float64; ``test`` is None without test data. Infinite or
        NaN where the network is.
    """

    positions: np.ndarray
    train: np.ndarray
    test: np.ndarray | None

    def barrier(self, which: str = "train") -> float:
        """Largest height above the chord, ``max_s L(s) - ((1 - s) L(0) + s L(1))``, at least 0.

        The error barrier of arXiv:2110.06296. Known at the points only, so a lower bound.
        """
        values = self._values(which)
        s = self.positions
        inside = (s >= 0) & (s <= 1)
        chord = (1 - s) * np.interp(0.0, s, values) + s * np.interp(1.0, s, values)
        return float(np.max(np.where(inside, values - chord, 0.0), initial=0.0))

    def rise(self, which: str = "train") -> float:
        """Largest climb on the way, ``max_{r < s} L(s) - L(r)``; 0 where the loss only falls.

        Training often ends where a straight line only falls from its start (arXiv:1412.6544).
        """
        values = self._values(which)[(self.positions >= 0) & (self.positions <= 1)]
        return float(np.max(values - np.minimum.accumulate(values)))

    def _values(self, which: str) -> np.ndarray:
        if which not in ("train", "test") or getattr(self, which) is None:
            has = "train" if self.test is None else "train, test"
            raise InputError(f"there is no loss {which!r} along this line; there are: {has}.")
        return getattr(self, which)

    def __str__(self) -> str:
        names = ["train"] + (["test"] if self.test is not None else [])
        lines = [f"{'':<6}  {'start':>10}  {'end':>10}  {'barrier':>10}  {'rise':>10}"]
        for name in names:
            ends = np.interp([0.0, 1.0], self.positions, self._values(name))
            cells = [*ends, self.barrier(name), self.rise(name)]
            lines.append(f"{name:<6}  " + "  ".join(f"{v:>10.4g}" for v in cells))
        return "\n".join(lines)


@dataclass(frozen=True)
class LossPlane:
    """The loss on a plane through parameters; made by :func:`loss_plane`.

    Attributes
    ----------
    a, b
        Coordinates along the two directions, ``(points,)``, float64.
    loss
        At ``params + a directions[0] + b directions[1]``, ``(points of b, points of a)``.
    directions
        Pytrees like the parameters.
    """

    a: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    directions: tuple[Params, Params]


def loss_along_line(
    f: Model,
    start: Params,
    end: Params,
    x: Any,
    y: Any,
    *,
    loss: str | Loss = "squared",
    points: int | ArrayLike = 25,
    test: tuple[Any, Any] | None = None,
    batch: int | None = None,
) -> LossLine:
    """The loss along the straight line between two points, such as start and end of training.

    Parameters
    ----------
    f, x, y, loss, batch
        As for :func:`hessian_eigenvalues`.
    start, end
        Parameters, pytrees of one structure. Those that are not floating point are the start's.
    points
        Number of points from 0 to 1, or rising positions, which may go beyond both ends.
    test
        ``(x, y)`` for a second curve.

    Returns
    -------
    LossLine
        With the height of the barrier; ``print`` shows a summary.

    Raises
    ------
    InputError
        Parameters that differ in structure or shapes, positions that do not rise or do not hold
        both ends, shapes of data that do not fit.

    Notes
    -----
    One evaluation of the loss a point and data set.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda w, x: x * w**2  # two minima, at w = -1 and w = 1
    >>> one = jnp.ones((1, 1))
    >>> line = ntk.train.loss_along_line(f, -jnp.ones(()), jnp.ones(()), one, one, points=5)
    >>> print(line.train, line.barrier())
    [0.      0.28125 0.5     0.28125 0.     ] 0.5
    """
    s = _positions(points)
    delta = _difference(start, end)
    train = Objective(f, start, x, y, loss, batch)
    other = None if test is None else Objective(f, start, test[0], test[1], loss, batch)
    places = [_moved(start, delta, float(t)) for t in s]
    return LossLine(
        positions=s,
        train=np.array([train.value(p) for p in places]),
        test=None if other is None else np.array([other.value(p) for p in places]),
    )


def loss_plane(
    f: Model,
    params: Params,
    x: Any,
    y: Any,
    *,
    loss: str | Loss = "squared",
    directions: tuple[Params, Params] | None = None,
    key: jax.Array | None = None,
    span: float = 1.0,
    points: int = 21,
    filter_axis: int = -1,
    batch: int | None = None,
) -> LossPlane:
    """The loss on a plane through the parameters: a two-dimensional slice of the landscape.

    Parameters
    ----------
    f, params, x, y, loss, batch
        As for :func:`hessian_eigenvalues`.
    directions
        Two pytrees like the parameters, used as they are, such as ``directions`` of
        :func:`hessian_eigenvalues`; by default two random ones, see :func:`random_direction`.
    key
        Decides the random directions.
    span
        Coordinates run from ``-span`` to ``span``.
    points
        Of each coordinate; an odd number has ``params`` themselves in the middle.
    filter_axis
        Axis of a parameter that counts its neurons or channels, for random directions.

    Returns
    -------
    LossPlane
        ``points^2`` values of the loss. Where ``f`` is not finite, neither is the loss.

    Raises
    ------
    InputError
        Neither directions nor a key, directions of another structure, numbers out of range.

    Notes
    -----
    ``points^2`` evaluations of the loss. Slices of different networks are comparable only with
    normalized random directions, and show few of very many dimensions (arXiv:1712.09913).

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda w, x: x @ w
    >>> ways = jnp.array([[1.0], [0.0]]), jnp.array([[0.0], [1.0]])
    >>> x, y = jnp.eye(2), jnp.zeros((2, 1))
    >>> plane = ntk.train.loss_plane(f, jnp.zeros((2, 1)), x, y, directions=ways, points=3)
    >>> print(plane.loss)
    [[0.5  0.25 0.5 ]
     [0.25 0.   0.25]
     [0.5  0.25 0.5 ]]
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 2 or not span > 0:
        raise InputError(f"points={points!r} and span={span!r}; expected at least 2 and above 0.")
    if directions is None:
        if key is None:
            raise InputError("give two directions, or a key that decides random ones.")
        keys = jax.random.split(key)
        directions = tuple(random_direction(params, k, filter_axis) for k in keys)  # type: ignore
    first, second = (_alike(params, d) for d in directions)  # type: ignore[union-attr]
    objective = Objective(f, params, x, y, loss, batch)
    a = np.linspace(-span, span, points)
    rows = [_moved(params, second, float(t)) for t in a]
    values = [[objective.value(_moved(row, first, float(s))) for s in a] for row in rows]
    return LossPlane(a, a.copy(), np.array(values), (first, second))


def _positions(points: Any) -> np.ndarray:
    if isinstance(points, int) and not isinstance(points, bool):
        if points < 2:
            raise InputError(f"points={points}; a line has at least its 2 ends.")
        return np.linspace(0, 1, points)
    s = np.asarray(points, np.float64)
    if s.ndim != 1 or len(s) < 2 or not (np.diff(s) > 0).all() or not {0.0, 1.0} <= set(s.tolist()):
        raise InputError(f"points={points} must be rising positions that include 0 and 1.")
    return s


def _alike(params: Params, other: Params) -> Params:
    """Another tree, if it is like the parameters."""
    trees = jax.tree.structure(params), jax.tree.structure(other)
    if trees[0] != trees[1]:
        raise InputError(f"parameters are trees {trees[0]} and {trees[1]}; expected equal.")
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (params, other)]
    if shapes[0] != shapes[1]:
        raise InputError(f"parameters have shapes {shapes[0]} and {shapes[1]}; expected equal.")
    return other


def _difference(start: Params, end: Params) -> Params:
    def one(a: Any, b: Any) -> Any:
        return jnp.asarray(b) - jnp.asarray(a) if _floating(a) else a

    return jax.tree.map(one, start, _alike(start, end))


def _moved(params: Params, direction: Params, step: float) -> Params:
    def one(p: Any, d: Any) -> Any:
        if not _floating(p):
            return p
        p = jnp.asarray(p)
        return p + jnp.asarray(step, p.dtype) * jnp.asarray(d, p.dtype)

    return jax.tree.map(one, params, direction)


def _floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)
