"""Bias and variance, measured on models fitted to random training sets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.theory.bias_variance import BiasVariance, bias_variance
from ntk_lab.theory.regressors import Regressor


class MeasuredBiasVariance(NamedTuple):
    """Parts of the error in independent repetitions of one experiment, ``(repeats,)`` each.

    Attributes
    ----------
    parts
        Of the error against labels without noise.
    train_error
        Mean squared error on the noisy training labels, summed over outputs, ``(repeats,)``.
    """

    parts: BiasVariance
    train_error: np.ndarray

    @property
    def mean(self) -> BiasVariance:
        """Mean of each part."""
        return BiasVariance(*(np.asarray(np.mean(part)) for part in self.parts))

    @property
    def standard_error(self) -> BiasVariance:
        """Standard error of each of these means."""
        return BiasVariance(*(np.asarray(_standard_error(part)) for part in self.parts))

    @property
    def error(self) -> tuple[float, float]:
        """Error, the sum of all parts, and its standard error."""
        return float(np.mean(self.parts.error)), _standard_error(self.parts.error)


def measured_bias_variance(
    regressor: Regressor,
    train: tuple[ArrayLike, ArrayLike],
    test: tuple[ArrayLike, ArrayLike],
    n: int,
    *,
    key: jax.Array,
    repeats: int = 10,
    draws: tuple[int, int, int] = (2, 2, 2),
    noise: float = 0.0,
) -> MeasuredBiasVariance:
    """Fit models to random subsets with noisy labels, from random initializations, crossed.

    Each repetition draws ``draws = (inputs, noises, initializations)``: sets of ``n`` examples
    without replacement, several draws of noise for each of them, and initializations; a model is
    fitted to every combination, and :func:`bias_variance` takes the errors apart without bias.
    All of it is one compiled program, in a loop over repetitions and vectorised within them.

    Parameters
    ----------
    regressor
        :class:`RandomFeatureRidge`, :class:`GradientFeatures`, :class:`TrainedNetwork` or any other
        function of that kind.
    train
        Population that training sets are drawn from, inputs ``(N, *shape)`` and labels without
        noise ``(N, outputs)``. It stands for a distribution as long as ``n`` is much less than
        ``N``.
    test
        Where predictions are compared with labels, in the same shapes.
    n
        Examples in a training set, at most ``N``.
    key
        ``jax.random`` key of all draws.
    repeats
        At least 2: their scatter is the error bar.
    draws
        At least 2 each; 1 draw of noise counts it as part of the data.
    noise
        Variance of the labels' noise, summed over outputs; Gaussian.

    Returns
    -------
    MeasuredBiasVariance
        NumPy arrays, in the dtype of the inputs.

    Raises
    ------
    InputError
        Shapes or numbers that do not fit.
    NumericalError
        If a fit gives predictions that are not finite.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> x = jnp.linspace(-1, 1, 40)[:, None]
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(20, b_std=1.0), ntk.nn.Relu())
    >>> found = ntk.theory.measured_bias_variance(
    ...     ntk.theory.RandomFeatureRidge(net, 0.1), (x, x**2), (x, x**2), 10,
    ...     key=jax.random.key(0), noise=0.1)
    >>> found.parts.noise.shape, bool(found.mean.bias < found.error[0])
    ((10,), True)
    """
    x, y = jnp.asarray(train[0]), jnp.asarray(train[1])
    x_test, y_test = jnp.asarray(test[0]), jnp.asarray(test[1])
    _check(x, y, x_test, y_test, n, repeats, noise)
    y, y_test = y.astype(x.dtype), y_test.astype(x.dtype)
    keys = jax.random.split(key, repeats)
    scale = jnp.asarray((noise / y.shape[1]) ** 0.5, x.dtype)
    parts, train_error = _measured(regressor, n, tuple(draws), keys, (x, y, x_test, y_test), scale)
    found = MeasuredBiasVariance(*jax.tree.map(np.asarray, (parts, train_error)))
    if not all(np.isfinite(part).all() for part in (*found.parts, found.train_error)):
        raise NumericalError(
            f"{regressor} gave predictions that are not finite on {n} examples: use a larger "
            "ridge, float64, or a smaller learning rate."
        )
    return found


@compiled(static_argnums=(0, 1, 2))
def _measured(
    regressor: Regressor,
    n: int,
    draws: tuple[int, int, int],
    keys: Array,
    data: tuple[Array, Array, Array, Array],
    scale: Array,
) -> tuple[BiasVariance, Array]:
    x, y, x_test, y_test = data

    def repetition(key: Array) -> tuple[BiasVariance, Array]:
        of_data, of_models = jax.random.split(key)
        by_initialization = jax.random.split(of_models, draws[2])

        def fitted(initial: Array, chosen: Array, of_noise: Array) -> tuple[Array, Array]:
            labels = y[chosen] + scale * jax.random.normal(of_noise, y[chosen].shape, y.dtype)
            predictor = regressor(initial, x[chosen], labels)
            return predictor(x_test), jnp.mean(jnp.sum((predictor(x[chosen]) - labels) ** 2, 1))

        def of_inputs(inputs: Array) -> tuple[Array, Array]:
            of_choice, of_noise = jax.random.split(inputs)
            chosen = jax.random.choice(of_choice, len(x), (n,), replace=False)
            noises = jax.random.split(of_noise, draws[1])
            # Noise innermost: features are then computed once for all draws of it.
            over_noise = jax.vmap(fitted, (None, None, 0))
            over_initialization = jax.vmap(over_noise, (0, None, None), 1)
            return over_initialization(by_initialization, chosen, noises)

        predictions, residuals = jax.vmap(of_inputs)(jax.random.split(of_data, draws[0]))
        return bias_variance(predictions, y_test), jnp.mean(residuals)

    return jax.lax.map(repetition, keys)


def _standard_error(values: Array | np.ndarray) -> float:
    return float(np.std(np.asarray(values), ddof=1) / len(values) ** 0.5)


def _check(
    x: Array, y: Array, x_test: Array, y_test: Array, n: int, repeats: int, noise: float
) -> None:
    for name, inputs, labels in (("train", x, y), ("test", x_test, y_test)):
        floating = jnp.issubdtype(inputs.dtype, jnp.floating)
        if inputs.ndim < 2 or labels.ndim != 2 or len(inputs) != len(labels) or not floating:
            raise InputError(
                f"{name} must be floating inputs (N, *shape) and labels (N, outputs); got shapes "
                f"{inputs.shape} and {labels.shape}, dtype {inputs.dtype}."
            )
    if x.shape[1:] != x_test.shape[1:] or y.shape[1] != y_test.shape[1]:
        raise InputError(
            f"training and test sets differ in shape: {x.shape[1:]} and {x_test.shape[1:]}, "
            f"{y.shape[1]} and {y_test.shape[1]} outputs."
        )
    if not 0 < n <= len(x) or repeats < 2 or not noise >= 0:
        raise InputError(
            f"n={n}, repeats={repeats}, noise={noise}; expected 0 < n <= N = {len(x)}, at least 2 "
            "repeats, and noise >= 0."
        )
