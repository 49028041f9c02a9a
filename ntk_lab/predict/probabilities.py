"""Class probabilities from Gaussian outputs."""

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.solve.estimate import Estimate, from_samples


def class_probabilities(
    mean: jax.Array, covariance: jax.Array | None, key: jax.Array | None, samples: int
) -> Estimate:
    """See `ntk_lab.predict.Moments.probabilities`."""
    if key is None:
        found = _squash(mean)
        return Estimate(found, jnp.zeros_like(found), 0)
    if covariance is None:
        raise InputError(
            "a key was given, for the mean over initializations, but there is no covariance: the "
            "prediction is for given initial outputs, or a kernel was not passed. Pass Kernels "
            "(and kernel_test_test) without f0, or leave out the key."
        )
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise InputError(f"samples={samples!r}; at least 2 are needed for a standard error.")
    root = _root(mean, covariance)
    draws = jax.random.normal(key, (samples, *mean.shape), mean.dtype)
    spread = jnp.einsum("...ncd,s...nd->s...nc", root, draws, precision="highest")
    return from_samples(_squash(mean[None] + spread))


def _squash(outputs: jax.Array) -> jax.Array:
    if outputs.shape[-1] == 1:
        return jax.nn.sigmoid(outputs)
    return jax.nn.softmax(outputs, axis=-1)


def _root(mean: jax.Array, covariance: jax.Array) -> jax.Array:
    """Square root of the covariance between the outputs of each example, ``(..., n, C, C)``."""
    if covariance.ndim == mean.ndim:  # shared by all outputs, which are independent
        variance = jnp.diagonal(covariance, axis1=-2, axis2=-1)
        deviation = jnp.sqrt(jnp.maximum(variance, 0))
        identity = jnp.eye(mean.shape[-1], dtype=mean.dtype)
        return jnp.einsum("...n,cd->...ncd", deviation, identity)
    blocks = jnp.diagonal(covariance, axis1=-4, axis2=-3)
    values, vectors = jnp.linalg.eigh(jnp.moveaxis(blocks, -1, -3))
    return vectors * jnp.sqrt(jnp.maximum(values, 0))[..., None, :]
