"""Bias and variance of predictors that are random by their data, labels and initialization."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError


class BiasVariance(NamedTuple):
    """Parts of the mean squared error against labels without noise; they add up to it.

    Attributes
    ----------
    bias
        Squared error of the mean prediction.
    data
        Variance by the choice of training inputs, of what is averaged over all else.
    initialization
        The same by the draw of initial parameters (or random features).
    data_initialization
        Interaction of both: what neither more data sets nor an ensemble alone averages away.
    noise
        Variance by noise in the labels that an ensemble over initializations keeps.
    noise_initialization
        Variance by noise in the labels that such an ensemble averages away.
    """

    bias: Array | np.ndarray
    data: Array | np.ndarray
    initialization: Array | np.ndarray
    data_initialization: Array | np.ndarray
    noise: Array | np.ndarray
    noise_initialization: Array | np.ndarray

    @property
    def variance(self) -> Array | np.ndarray:
        """All of it."""
        return self.error - self.bias

    @property
    def error(self) -> Array | np.ndarray:
        """Sum of the parts: the expected error."""
        first, *others = self
        return sum(others, first)


def bias_variance(predictions: ArrayLike, targets: ArrayLike) -> BiasVariance:
    """Unbiased parts of the error from predictions of a crossed design.

    With ``e = f - y`` at one point and ``E[e e']`` over pairs of predictors that share only what
    is named, the parts are ``bias = E[e e']`` of pairs that share nothing, ``bias + data`` that of
    one set of inputs under different noise and initialization, ``bias + initialization`` that of
    one initialization on different data, ``bias + data + noise`` that of one data set with its
    noise under two initializations, and so on (a decomposition of variance into main effects and
    interactions, arXiv:2011.03321). Unbiased estimates may be negative where a part is small.

    Parameters
    ----------
    predictions
        ``(..., inputs, noises, initializations, points, outputs)``: every set of training inputs
        under every initialization, and with several draws of noise of its own. At least 2 of each,
        or 1 of noises: then noise counts as part of the data.
    targets
        Without noise, ``(points, outputs)``.

    Returns
    -------
    BiasVariance
        Means over points, summed over outputs, each of the shape of the leading axes: independent
        repetitions of the whole design there give standard errors. Dtype of the predictions.

    Raises
    ------
    InputError
        If shapes do not fit, or a factor has too few values.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> by_inputs = jnp.array([1.0, -1.0]).reshape(2, 1, 1, 1, 1) * jnp.ones((2, 1, 2, 1, 1))
    >>> parts = ntk.theory.bias_variance(by_inputs, jnp.zeros((1, 1)))
    >>> float(parts.bias), float(parts.data), float(parts.initialization)
    (-1.0, 2.0, 0.0)
    """
    values = jnp.asarray(predictions)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(jnp.result_type(float))
    y = jnp.asarray(targets, values.dtype)
    if values.ndim < 5 or y.ndim != 2 or values.shape[-2:] != y.shape:
        raise InputError(
            "expected predictions (..., inputs, noises, initializations, points, outputs) and "
            f"targets (points, outputs); got shapes {values.shape} and {y.shape}."
        )
    inputs, noises, initializations = values.shape[-5:-2]
    if inputs < 2 or initializations < 2 or noises < 1:
        raise InputError(
            "a variance takes at least 2 sets of inputs and 2 initializations, and 1 draw of "
            f"noise; got {inputs}, {initializations} and {noises}."
        )
    return _parts(values, y)


@compiled
def _parts(values: Array, targets: Array) -> BiasVariance:
    errors = values - jax.lax.expand_dims(targets, tuple(range(values.ndim - 2)))
    s, k, r = errors.shape[-5:-2]

    def square(*axes: int) -> Array:
        """Sum over the design of squared sums over axes of it, mean over points."""
        summed = jnp.sum(errors, axes, keepdims=True) ** 2
        return jnp.sum(summed, (-1, -3, -4, -5)).mean(-1)

    # Pairs that share all, both draws of the data, the inputs and initialization, ...
    same, same_data = square(), square(-3) - square()
    same_inputs_initialization = square(-4) - square()
    same_inputs = square(-4, -3) - square(-4) - square(-3) + square()
    same_initialization = square(-5, -4) - square(-4)
    nothing = square(-5, -4, -3) - square(-5, -4) - square(-4, -3) + square(-4)
    every = same / (s * k * r)
    of_data = same_data / (s * k * r * (r - 1))
    bias = nothing / (s * (s - 1) * k**2 * r * (r - 1))
    initialization = same_initialization / (s * (s - 1) * k**2 * r) - bias
    if k == 1:
        data = of_data - bias
        zero = jnp.zeros_like(bias)
        both = every - bias - data - initialization
        return BiasVariance(bias, data, initialization, both, zero, zero)
    data = same_inputs / (s * k * (k - 1) * r * (r - 1)) - bias
    of_both = same_inputs_initialization / (s * k * (k - 1) * r)
    both = of_both - bias - data - initialization
    noise = of_data - bias - data
    return BiasVariance(bias, data, initialization, both, noise, every - of_both - noise)
