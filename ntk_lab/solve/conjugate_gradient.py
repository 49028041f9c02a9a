"""Conjugate gradients for several right sides at once, driven from the host."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.errors import ConvergenceError, NumericalError

Product = Callable[[jax.Array], jax.Array]
# Told the number of products, the solution so far and its residuals by the recurrence, relative.
Watch = Callable[[int, jax.Array, np.ndarray], object]

# Rounding makes the residual of the recurrence drift from the true one; then it starts again.
_ROUNDS = 8
# By how much residuals may fall before they are looked at with exact products.
_REDUCTION = 1e-3


class Solution(NamedTuple):
    """Solution of ``(Theta + ridge I) a = y``, and how well it solves it.

    Attributes
    ----------
    value
        ``a``, in the shape of ``y``.
    relative_residual
        ``|y - (Theta + ridge I) a| / |y|``, computed from ``a`` itself at the end; one number for
        each right side.
    iterations
        Products with the kernel, all right sides counting as one.
    """

    value: jax.Array
    relative_residual: jax.Array
    iterations: int


class _State(NamedTuple):
    x: jax.Array
    residual: jax.Array
    direction: jax.Array
    descent: jax.Array
    active: jax.Array


def conjugate_gradient(
    apply: Product,
    y: jax.Array,
    *,
    precondition: Product | None = None,
    exact: Product | None = None,
    start: jax.Array | None = None,
    watch: Watch | None = None,
    tol: float,
    max_iterations: int,
) -> Solution:
    """Solve ``A x = y`` for symmetric positive definite ``A``, column by column of ``y``.

    Parameters
    ----------
    apply
        ``A @ v`` for ``v`` of the shape ``(n, m)`` of ``y``.
    y
        Right sides, shape ``(n, m)``.
    precondition
        An approximation of ``A^-1 @ v``, symmetric positive definite.
    exact
        ``A @ v`` by which residuals are measured, where ``apply`` is cheap and rounds: the
        solution is refined until its true residual is below ``tol``.
    start
        An approximate solution, zero unless given.
    watch
        Called as ``watch(products, solution, relative residuals)`` after each product.
    tol
        Bound on ``|y - A x| / |y|`` of every column.
    max_iterations
        Bound on the number of products.

    Returns
    -------
    Solution
        With ``value`` of shape ``(n, m)``.

    Raises
    ------
    ConvergenceError
        Residuals above ``tol``: the products are used up, rounding forbids more, or ``A`` is not
        positive definite. Its ``result`` is the `Solution` so far.
    NumericalError
        Values that are not finite.

    Notes
    -----
    Each right side runs its own recurrence, and they share the products. The iteration is driven
    from the host: convolutions inside compiled loops are tens of times slower on CPU.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntk_lab.solve import conjugate_gradient
    >>> diagonal = jnp.arange(1.0, 4.0)[:, None]
    >>> found = conjugate_gradient(
    ...     lambda v: diagonal * v, jnp.ones((3, 1)), tol=1e-5, max_iterations=9
    ... )
    >>> print(found.value[:, 0].round(3), found.iterations)
    [1.    0.5   0.333] 4
    """
    precondition = precondition or (lambda v: v)
    sizes = np.asarray(jnp.linalg.norm(y, axis=0), np.float64)
    if not np.isfinite(sizes).all():
        raise NumericalError("the right side holds NaN or infinity; look at y.")
    measured = exact or apply
    x, residual, used, reason = jnp.zeros_like(y), y, 0, None
    if start is not None:
        x, used = start, 1
        residual = y - measured(x)
    before = np.asarray(jnp.linalg.norm(residual, axis=0), np.float64)
    for _ in range(_ROUNDS):
        least = tol * sizes if exact is None else np.maximum(tol * sizes, _REDUCTION * before)
        target = jnp.asarray(least, y.dtype)
        state = _start(x, residual, precondition(residual), target)
        while bool(state.active.any()) and used < max_iterations and reason is None:
            state, definite = _step(state, apply(state.direction))
            state = _turn(state, precondition(state.residual), target)
            used += 1
            reason = None if bool(definite) else "the matrix is not positive definite to rounding"
            if watch is not None:
                watch(used, state.x, _relative(state.residual, sizes))
        x = state.x
        residual = y - measured(x)
        used += 1
        now = np.asarray(jnp.linalg.norm(residual, axis=0), np.float64)
        left = now > tol * sizes
        if not left.any() or used >= max_iterations or reason is not None:
            break
        if (now[left] > before[left] / 2).any():
            reason = "rounding forbids more"
            break
        before = now
    relative = jnp.asarray(_relative(residual, sizes), y.dtype)
    solution = Solution(x, relative, used)
    if left.any():
        _refuse(solution, tol, reason or "the iterations are used up")
    return solution


def _relative(residual: jax.Array, sizes: np.ndarray) -> np.ndarray:
    norms = np.asarray(jnp.linalg.norm(residual, axis=0), np.float64)
    return norms / np.where(sizes > 0, sizes, 1)


@compiled
def _start(x: jax.Array, residual: jax.Array, z: jax.Array, target: jax.Array) -> _State:
    active = jnp.linalg.norm(residual, axis=0) > target
    return _State(x, residual, z, (residual * z).sum(axis=0), active)


@compiled
def _step(state: _State, product: jax.Array) -> tuple[_State, jax.Array]:
    """Along the direction to the minimum; whether the matrix is positive on all directions."""
    x, residual, direction, descent, active = state
    curvature = (direction * product).sum(axis=0)
    definite = (curvature > 0) | ~active
    moves = active & definite
    length = jnp.where(moves, descent / jnp.where(moves, curvature, 1), 0)[None]
    moved = state._replace(x=x + length * direction, residual=residual - length * product)
    return moved, definite.all()


@compiled
def _turn(state: _State, z: jax.Array, target: jax.Array) -> _State:
    """The next direction, conjugate to the earlier ones."""
    descent = (state.residual * z).sum(axis=0)
    ratio = jnp.where(state.active, descent / jnp.where(state.active, state.descent, 1), 0)
    active = state.active & (jnp.linalg.norm(state.residual, axis=0) > target)
    return state._replace(
        direction=z + ratio[None] * state.direction, descent=descent, active=active
    )


def _refuse(solution: Solution, tol: float, reason: str) -> None:
    worst = float(solution.relative_residual.max())
    raise ConvergenceError(
        f"after {solution.iterations} products the relative residual is {worst:.2g}, above "
        f"tol={tol:.1g}: {reason}. Raise the ridge, tol or max_iterations, take a Nystrom "
        "preconditioner of higher rank, or compute in float64. This error's `result` holds the "
        "solution so far.",
        solution,
    )
