"""Kernels of networks over positions by loops compiled for the CPU, and what follows pooling."""

import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.kernel.covariance import Covariance
from ntk_lab.kernel.layout import Carry
from ntk_lab.kernel.native import average_kernels
from ntk_lab.kernel.native_attention import attention_means, bytes_needed
from ntk_lab.kernel.native_diagonal import Means, diagonal_means
from ntk_lab.kernel.native_steps import Attend, Flat, Step
from ntk_lab.kernel.native_vectors import FEWEST
from ntk_lab.kernel.plan import Cost, available_memory, make_plan
from ntk_lab.kernel.positions import with_exact_diagonal
from ntk_lab.kernel.result import Kernel
from ntk_lab.kernel.state import Features, moments


def attention_kernel(
    native: tuple[list[Step], int, Any], x1, x2, memory_limit: int | None, progress
) -> Kernel | None:
    """Kernel of a network with attention that ends in pooling; None where loops do not apply."""
    steps, channels, tail = native
    shape, positions = (len(x1), len(x1 if x2 is None else x2)), math.prod(x1.shape[1:-1])
    if not any(isinstance(step, Attend) for step in steps) or isinstance(steps[-1], Flat):
        return None
    if math.prod(shape) * positions**2 < FEWEST:
        return None
    needed = bytes_needed(steps, shape[0] + (x2 is not None) * shape[1], positions, x1.dtype)
    if needed > available_memory(memory_limit, needed):
        return None
    make_plan(Cost(1.0, 1.0), None, shape, x2 is None, 1, x1.dtype.itemsize, memory_limit)
    data = np.asarray(x1), None if x2 is None else np.asarray(x2)
    means = attention_means(steps, *data, progress)
    return None if means is None else _after_pooling(tail, channels, x2 is None, True, *means)


def position_kernel(
    native: tuple[list[Step], int, Any], carry: Carry, x1, x2, progress
) -> Kernel | None:
    """Kernel of a convolutional network that ends in pooling or flattening; None as above."""
    steps, channels, tail = native
    if any(isinstance(step, Attend) for step in steps):
        return None
    if not isinstance(steps[-1], Flat):
        data, own = (np.asarray(x1), None if x2 is None else np.asarray(x2)), carry == Carry.OWN
        means = average_kernels(steps, *data, own, os.cpu_count() or 1, progress)
        return _after_pooling(tail, channels, x2 is None, own, *means)
    large = math.prod(x1.shape[:-1]) * len(x1 if x2 is None else x2) >= FEWEST
    if carry == Carry.DIAGONAL and large:
        return _flat_kernel(steps, channels, tail, x1, x2, progress)
    return None


@compiled(static_argnums=(0, 1, 2, 3))
def _after_pooling(tail, channels: int, symmetric: bool, own: bool, cov, ntk, var1, var2) -> Kernel:
    """Kernel after the remaining layers; ``own``: whether variances are known."""
    same = jnp.eye(len(cov), dtype=bool) if symmetric else jnp.zeros(cov.shape, bool)
    k = with_exact_diagonal(var1[:, None], var2[None, :], cov, same if own else False)
    state = moments(tail.propagate(Features(k, ntk, channels, same=same)))
    return Kernel(state.cov.cov, state.ntk)


def _flat_kernel(steps: list[Step], channels: int, tail, x1, x2, progress) -> Kernel | None:
    images = None if x2 is None else _as_images(x2)
    means = diagonal_means(steps[:-1], _as_images(x1), images, progress)
    if means is None:
        return None
    return _after_flattening(tail, channels, x2 is None, means)


def _as_images(x: jax.Array) -> np.ndarray:
    """Data with two spatial axes."""
    data = np.asarray(x)
    return data if data.ndim == 4 else data[:, None]


@compiled(static_argnums=(0, 1, 2))
def _after_flattening(tail, channels: int, symmetric: bool, means: Means) -> Kernel:
    m1, m2 = jnp.asarray(means.m1)[:, None], jnp.asarray(means.m2)[None, :]
    var1, var2, scale = means.var1[:, None], means.var2[None, :], m1 * m2
    k = Covariance.from_distance(var1, var2, scale * means.distance, m2 / m1)
    same = jnp.eye(len(m1), dtype=bool) if symmetric else jnp.zeros(scale.shape, bool)
    ntk = scale * means.ntk
    state = moments(tail.propagate(Features(k, ntk, channels, same=same)))
    kernel = Kernel(state.cov.cov, state.ntk)
    # Exactly symmetric: the weighting treats the two sides differently, to rounding.
    return jax.tree.map(lambda k: jnp.triu(k) + jnp.triu(k, 1).T, kernel) if symmetric else kernel
