"""Predictions from a kernel that is known by its products with vectors only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.operator import Operator
from ntk_lab.errors import ConvergenceError, InputError
from ntk_lab.predict.decay import read_rate
from ntk_lab.predict.inputs import check_starts, read_outputs, read_ridge
from ntk_lab.predict.modes import Factors
from ntk_lab.predict.result import Moments
from ntk_lab.solve import KrylovSpace, extended, krylov


class MatrixFreePrediction(NamedTuple):
    """A prediction from products, with its estimated error.

    Attributes
    ----------
    train, test
        As in `ntk_lab.predict.Prediction`, means only.
    error_train, error_test
        Estimated error of the outputs on each set, relative to how far they moved from their
        initial values, both in L2; one number a time. An estimate, not a bound: the change when
        the last quarter of the Krylov space is left out.
    products
        Products of the training kernel with a stack of vectors.
    """

    train: Moments
    test: Moments | None
    error_train: jax.Array
    error_test: jax.Array | None
    products: int


@dataclass(frozen=True)
class MatrixFree:
    """Predictions on squared error from an operator; made by `gradient_flow` and others.

    Attributes
    ----------
    train, test
        Operators of (train, train) and (test, train).
    error
        ``y - f0`` on the training set, one column for each vector that the operator takes.
    f0_train, f0_test
        Initial outputs, ``(n, C)``.
    ridge, decay
        Added to the kernel, and to each rate.
    factors
        From a time (or number of steps) what it leaves of a mode of each rate, see `evolve`.
    read
        Checks times.
    check
        Refuses the largest rate where training would be unstable.
    """

    train: Operator
    test: Operator | None
    error: jax.Array
    f0_train: jax.Array
    f0_test: jax.Array | None
    ridge: jax.Array
    decay: jax.Array
    factors: Callable[[jax.Array], Factors]
    read: Callable[[ArrayLike], jax.Array]
    check: Callable[[jax.Array], None]

    def at(
        self, t: ArrayLike, *, tol: float | None = None, max_products: int = 500
    ) -> MatrixFreePrediction:
        """Prediction at one or more times; all of them share their products.

        Parameters
        ----------
        t
            As for the same prediction from an array: times, or whole numbers of steps.
        tol
            Bound on the estimated relative errors; default 1e-8 in float64, 1e-4 in float32.
        max_products
            Bound on the number of products with the training kernel.

        Returns
        -------
        MatrixFreePrediction
            Not under ``jit``: the number of products follows from the values.

        Raises
        ------
        InputError
            Times that do not fit, or no times; a number of products below 1.
        ConvergenceError
            If products are used up; its ``result`` is the prediction so far. Long times and small
            ridges need more: about ``sqrt(t * lambda_max / n)`` times the digits.
        """
        if isinstance(max_products, bool) or int(max_products) != max_products or max_products < 1:
            raise InputError(f"max_products={max_products!r}; expected a whole number from 1.")
        t = self.read(t)
        if not is_concrete(t, self.error):
            raise InputError(
                "matrix-free predictions take products until they are right, which cannot be known "
                "under jit, grad or vmap. Call them outside."
            )
        if not t.size:
            raise InputError(f"t has shape {t.shape}: there is no time to predict for.")
        if tol is None:
            tol = 1e-8 if self.error.dtype == jnp.float64 else 1e-4
        most = min(len(self.error), int(max_products))
        space, depth = None, min(16, most)
        while True:
            if space is None:
                space = krylov(self._apply, self.error, depth)
            else:
                space = extended(self._apply, space, depth)
            found = self._predict(space, t)
            errors = [e for e in (found.error_train, found.error_test) if e is not None]
            worst = max(float(jnp.max(e, initial=0.0)) for e in errors)
            if worst <= tol or depth == len(self.error):
                largest = space.spectra(space.depth)[0].max()
                self.check((largest + self.ridge) / len(self.f0_train) + self.decay)
                return found
            if depth == most:
                _refuse(found, worst, tol)
            depth = min(2 * depth, most)

    def _apply(self, v: jax.Array) -> jax.Array:
        return self.train @ v

    def _predict(self, space: KrylovSpace, t: jax.Array) -> MatrixFreePrediction:
        times = t.reshape(-1)
        fewer = max(1, 3 * space.depth // 4)
        pairs = [[self._moves(space, depth, s) for s in times] for depth in (space.depth, fewer)]
        train, spare = (jnp.stack([on_train for on_train, _ in pair]) for pair in pairs)
        lead = t.shape
        error_train = _relative(train - spare, train).reshape(lead)
        mean = _added(self.f0_train, train, lead)
        whole = space.depth == len(self.error)
        if whole:  # nothing is left out, but for rounding
            error_train = jnp.zeros_like(error_train)
        if self.test is None or self.f0_test is None:
            return MatrixFreePrediction(Moments(mean, None), None, error_train, None, space.depth)
        weights = jnp.stack([w for pair in pairs for _, w in pair])
        count, n, m = weights.shape
        columns = jnp.moveaxis(weights, 0, 2).reshape(n, m * count)
        moved = jnp.moveaxis((self.test @ columns).reshape(-1, m, count), 2, 0)
        test, spare = jnp.split(moved, 2)
        error_test = _relative(test - spare, test).reshape(lead)
        if whole:
            error_test = jnp.zeros_like(error_test)
        outputs = _added(self.f0_test, test, lead)
        return MatrixFreePrediction(
            Moments(mean, None), Moments(outputs, None), error_train, error_test, space.depth
        )

    def _moves(self, space: KrylovSpace, depth: int, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What training adds on the training set, and the weights that give it, ``(N, m)``."""
        values, vectors = space.spectra(depth)
        n = len(self.f0_train)
        eps = jnp.finfo(values.dtype).eps
        least = 4 * len(self.error) ** 0.5 * eps * jnp.abs(values).max()
        learnable = values + self.ridge > least
        rates = jnp.where(learnable, values + self.ridge, least) / n
        _, gone = self.factors(t)(rates + self.decay)
        gain = jnp.where(learnable, gone / (rates + self.decay), 0)
        weights = space.function(gain / n, vectors)
        return space.function(gain * rates, vectors), weights


def matrix_free(
    train: Operator,
    y_train: ArrayLike,
    test: Any,
    corner: Any,
    factors: Callable[[jax.Array], Factors],
    read: Callable[[ArrayLike], jax.Array],
    *,
    f0_train: ArrayLike | None,
    f0_test: ArrayLike | None,
    ridge: ArrayLike,
    weight_decay: ArrayLike,
    decay_to: str,
    which: str,
    jvp_train: ArrayLike | None,
    jvp_test: ArrayLike | None,
    squared_loss: bool,
    check: Callable[[jax.Array], None] = lambda largest: None,
) -> MatrixFree:
    """Check the arguments of a prediction from operators; see `gradient_flow`."""
    if which not in ("ntk", "nngp"):
        raise InputError(f'which is {which!r}; an operator is one kernel, "ntk" or "nngp" alike.')
    if corner is not None or not squared_loss or jvp_train is not None or jvp_test is not None:
        raise InputError(
            "predictions from an operator are means for squared error, with decay, if any, towards "
            "the initial parameters. Pass kernels as arrays (ntk.empirical.ntk) for other losses, "
            "decay towards zero and covariances."
        )
    train._square("a prediction")
    n = train.vector_shape[0]
    full = train.shape[0] != n
    y = read_outputs("y_train", y_train, n, train.vector_shape[-1] if full else None, train.dtype)
    if test is not None and not isinstance(test, Operator):
        raise InputError(
            "kernel_train_train is an operator, kernel_test_train is not; make it by "
            "ntk.empirical.operator(f, params, x_test, x_train)."
        )
    if test is not None and test.shape[1] != train.shape[1]:
        raise InputError(
            f"kernel_test_train has shape {test.shape}, kernel_train_train {train.shape}; make the "
            "first by ntk.empirical.operator(f, params, x_test, x_train)."
        )
    check_starts(f0_train, f0_test, test)
    zero = jnp.zeros_like(y)
    start = zero if f0_train is None else read_outputs("f0_train", f0_train, n, y.shape[1], y.dtype)
    start_test = None
    if test is not None:
        rows = test.examples[0]
        start_test = jnp.zeros((rows, y.shape[1]), y.dtype) if f0_test is None else f0_test
        start_test = read_outputs("f0_test", start_test, rows, y.shape[1], y.dtype)
    decay = read_rate(weight_decay, decay_to, y.dtype)
    if is_concrete(decay) and decay > 0 and decay_to != "initial":
        raise InputError("decay towards zero needs the kernel as an array; or decay_to='initial'.")
    error = (y - start).reshape(-1, 1) if full else y - start
    ridge = read_ridge(ridge, y.dtype)
    return MatrixFree(train, test, error, start, start_test, ridge, decay, factors, read, check)


def _added(start: jax.Array, moves: jax.Array, lead: tuple[int, ...]) -> jax.Array:
    found = start[None] + moves.reshape(-1, *start.shape)
    return found.reshape(*lead, *start.shape)


def _relative(gap: jax.Array, moved: jax.Array) -> jax.Array:
    """Norm of each time's gap over that of what moved."""
    sizes = jnp.linalg.norm(moved.reshape(len(moved), -1), axis=1)
    gaps = jnp.linalg.norm(gap.reshape(len(gap), -1), axis=1)
    return jnp.where(sizes > 0, gaps / jnp.where(sizes > 0, sizes, 1), 0)


def _refuse(found: MatrixFreePrediction, worst: float, tol: float) -> None:
    raise ConvergenceError(
        f"after {found.products} products the estimated relative error is {worst:.2g}, above "
        f"tol={tol:.1g}. Raise max_products, tol or the ridge, ask for shorter times, or compute "
        "in float64. This error's `result` holds the prediction so far.",
        found,
    )
