"""The ridge at which regression on random features errs least."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError
from ntk_lab.theory.random_features import random_feature_curve

_GRID, _LEAST, _MOST = 57, 1e-10, 1e4
_STEPS = 40  # of golden sections: 57 points over some 14 decades leave 0.5, which becomes 1e-8
_GOLDEN = (5**0.5 - 1) / 2


def optimal_ridge(
    eigenvalues: ArrayLike,
    power: ArrayLike,
    n: ArrayLike,
    features: ArrayLike = jnp.inf,
    *,
    noise: ArrayLike = 0.0,
    multiplicity: ArrayLike | None = None,
) -> Array:
    """The ridge of least test error of :func:`random_feature_curve`, ``argmin_r E(r)``.

    Under it the test error falls with ``n`` and with the number of features, whatever the target
    and the noise: the peak of double descent is gone (arXiv:2311.14646, theorem 1).

    Parameters
    ----------
    eigenvalues, power, n, features, noise, multiplicity
        As of :func:`random_feature_curve`; without ``features``, of :func:`learning_curve`.

    Returns
    -------
    Array
        Of the broadcast shape of ``n`` and ``features``, between ``1e-10`` and ``1e4 n`` times the
        kernel's trace ``sum_i m_i lambda_i``: at the ends where none, or predicting 0, is best.
        Relative error about the root of the dtype's rounding, as of any minimum; the test error
        is accurate to rounding. Cost: 137 of its evaluations. Not differentiable (nor need
        it be: the test error's derivative there is the partial one).

    Raises
    ------
    InputError
        As :func:`random_feature_curve`, and for eigenvalues that are all zero.

    Examples
    --------
    One eigenvalue and white targets: the best ridge is noise over power a mode, with the kernel's
    eigenvalues of 1.

    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> ridge = ntk.theory.optimal_ridge(jnp.ones(400), jnp.full(400, 1 / 400), 100.0, noise=0.2)
    >>> bool(abs(ridge / 80 - 1) < 0.01)
    True
    """
    values = jnp.asarray(eigenvalues)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(jnp.result_type(float))
    n, p = jnp.asarray(n, values.dtype), jnp.asarray(features, values.dtype)
    if is_concrete((values, noise, n, p), {}):
        if not bool(jnp.any(values > 0)):
            raise InputError("a best ridge needs a positive eigenvalue; all are zero or NaN.")
        random_feature_curve(
            values, power, n, p, ridge=1.0, noise=noise, multiplicity=multiplicity
        )  # says what does not fit
    n, p = jnp.broadcast_arrays(n, p)
    counts = jnp.ones_like(values) if multiplicity is None else jnp.asarray(multiplicity)
    counts, power, noise = (jnp.asarray(v, values.dtype) for v in (counts, power, noise))
    return _optimum(values, power, counts, noise, n, p)


@compiled
def _optimum(values: Array, power: Array, counts: Array, noise: Array, n: Array, p: Array) -> Array:
    scale = jnp.log(jnp.sum(counts * values))
    low, high = jnp.log(jnp.asarray([_LEAST, _MOST], values.dtype)) + scale

    def error(log: Array) -> Array:
        return random_feature_curve(
            values, power, n, p, ridge=jnp.exp(log), noise=noise, multiplicity=counts
        ).test_error

    top = high + jnp.log(n)
    shares = jnp.linspace(0, 1, _GRID, dtype=values.dtype)
    grid = [low + share * (top - low) for share in shares]
    best = jnp.argmin(jax.lax.map(error, jnp.stack(grid)), 0).astype(values.dtype)
    step = (top - low) / (_GRID - 1)
    left = low + step * jnp.maximum(best - 1, 0)
    right = low + step * jnp.minimum(best + 1, _GRID - 1)

    def shrink(_, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        left, right = ends
        first, second = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
        smaller = error(first) < error(second)
        return jnp.where(smaller, left, first), jnp.where(smaller, second, right)

    left, right = jax.lax.fori_loop(0, _STEPS, shrink, (left, right))
    return jnp.exp((left + right) / 2)
