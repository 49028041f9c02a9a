"""Layers on feature vectors whose products are covariances and NTKs.

With ``<phi(x), phi(x')> = q`` and ``<psi(x), psi(x')> = t`` before a layer, the kernel rules become
maps of vectors (arXiv:2104.01351, arXiv:2106.07880). Weights concatenate::

    phi' = [w_std phi, b_std],    psi' = [phi', w_std psi]

over the offsets of a window for convolutions; pooling is a mean of vectors. An activation takes
random weights ``W``, of which the mean over draws is exact, and a tensor product of vectors that is
sketched to a given length::

    phi' = act(phi W) / sqrt(m),    psi' = sketch(act'(phi W) / sqrt(m), psi)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import hadamard

from ntk_lab.compiled import compiled
from ntk_lab.kernel.native_steps import Average, Filter, Mix, Step, TwoSlopes
from ntk_lab.kernel.positions import Window


@dataclass(frozen=True)
class Pool:
    """Pooling by one matrix for each spatial axis, told from others by its numbers."""

    matrices: tuple[tuple[tuple[float, ...], ...], ...]


FeatureStep = Filter | TwoSlopes | Average | Pool


class Half(NamedTuple):
    """One factor of a sketched product: random signs ``(d,)`` and rows of the transform."""

    signs: jax.Array
    rows: jax.Array


class Draw(NamedTuple):
    """Random numbers of an activation: weights ``(d, m)``, and the sketch if there is one."""

    weights: jax.Array
    slopes: Half | None
    tangents: Half | None


class Sizes(NamedTuple):
    """Features that an activation makes of the covariance, and of the NTK."""

    activations: int
    tangents: int


class Shapes(NamedTuple):
    """Positions and lengths of the vectors that come to an activation; 0 is no vector."""

    positions: int
    phi: int
    psi: int

    def entries(self, sizes: Sizes) -> int:
        """Numbers that one example takes there, about."""
        sketched = _padded(self.psi) + _padded(sizes.activations) if self.psi else 0
        return self.positions * (self.phi + sizes.activations + sketched)


def known(steps: Sequence[Step]) -> tuple[FeatureStep, ...] | None:
    """The steps as they are taken here; None if one of them is not known."""
    found: list[FeatureStep] = []
    for step in steps:
        if isinstance(step, Mix):
            found.append(Pool(tuple(tuple(map(tuple, m.tolist())) for m in step.matrices)))
        elif isinstance(step, Filter | TwoSlopes | Average):
            found.append(step)
        else:
            return None
    return tuple(found)


@compiled(static_argnums=(0, 1))
def transform(
    steps: tuple[FeatureStep, ...], which: str, x: jax.Array, draws: Sequence[Draw]
) -> jax.Array:
    """Features of ``x``, ``(n, count)``, by the draws of each activation."""
    left = iter(draws)
    return _walk(steps, which, x, lambda _: next(left))


def follow(
    steps: Sequence[FeatureStep], which: str, x: jax.ShapeDtypeStruct, sizes: Sizes
) -> tuple[int, list[Shapes]]:
    """Number of features, and what comes to each activation; nothing is computed."""
    seen: list[Shapes] = []

    def blank(shapes: Shapes) -> Draw:
        seen.append(shapes)
        halves = [
            Half(jnp.zeros(d, x.dtype), jnp.zeros(sizes.tangents, jnp.int32))
            if shapes.psi
            else None
            for d in (sizes.activations, shapes.psi)
        ]
        return Draw(jnp.zeros((shapes.phi, sizes.activations), x.dtype), *halves)

    found = jax.eval_shape(lambda x: _walk(steps, which, x, blank), x)
    return found.shape[-1], seen


def draw(shapes: Shapes, sizes: Sizes, key: jax.Array, dtype: np.dtype) -> Draw:
    """Random numbers for an activation."""
    keys = jax.random.split(key, 3)
    weights = jax.random.normal(keys[0], (shapes.phi, sizes.activations), dtype)
    if not shapes.psi:
        return Draw(weights, None, None)
    halves = [
        _half(k, d, sizes.tangents, dtype)
        for k, d in zip(keys[1:], (sizes.activations, shapes.psi), strict=True)
    ]
    return Draw(weights, *halves)


def _half(key: jax.Array, d: int, count: int, dtype: np.dtype) -> Half:
    """Rows are all different as long as there are enough of them."""
    first, *others = jax.random.split(key, 1 + -(-count // _padded(d)))
    orders = [jax.random.permutation(k, _padded(d)) for k in others]
    return Half(jax.random.rademacher(first, (d,), dtype), jnp.concatenate(orders)[:count])


def _walk(
    steps: Sequence[FeatureStep], which: str, x: jax.Array, drawn: Callable[[Shapes], Draw]
) -> jax.Array:
    phi, psi = x / x.shape[-1] ** 0.5, x[..., :0]
    for step in steps:
        if isinstance(step, Filter):
            phi, psi = _filtered(step, phi, psi, which)
        elif isinstance(step, TwoSlopes):
            shapes = Shapes(math.prod(phi.shape[1:-1]), phi.shape[-1], psi.shape[-1])
            phi, psi = _activated(step, phi, psi, drawn(shapes))
        else:
            phi, psi = (_pooled(step, v) for v in (phi, psi))
    return phi if which == "nngp" else psi


def _filtered(step: Filter, phi, psi, which: str) -> tuple[jax.Array, jax.Array]:
    share = math.prod(w.taps for w in step.windows) ** -0.5
    phi, psi = (share * _patches(v, step.windows) for v in (phi, psi))
    parts = [math.sqrt(step.weight_tangent) * phi, _constant(step.bias_tangent, phi)]
    tangent = jnp.concatenate([*parts, math.sqrt(step.signal) * psi], axis=-1)
    signal = [math.sqrt(step.signal) * phi, _constant(step.constant, phi)]
    return jnp.concatenate(signal, axis=-1), tangent if which == "ntk" else psi


def _constant(variance: float, like: jax.Array) -> jax.Array:
    """A column whose product is a constant; none for zero."""
    shape = (*like.shape[:-1], int(variance > 0))
    return jnp.full(shape, math.sqrt(variance), like.dtype)


def _patches(v: jax.Array, windows: Sequence[Window]) -> jax.Array:
    """Vectors of all offsets of the windows side by side, zeros outside."""
    for axis, window in enumerate(windows, start=1):
        if window == Window.single():
            continue
        mode = "wrap" if window.circular else "constant"
        width = [(0, 0)] * v.ndim
        width[axis] = (window.before, window.after)
        taps = window.dilation * np.arange(window.taps)
        places = window.firsts(v.shape[axis])[:, None] + window.before + taps
        found = jnp.take(jnp.pad(v, width, mode=mode), jnp.asarray(places), axis=axis)
        found = jnp.moveaxis(found, axis + 1, -2)
        v = found.reshape(*found.shape[:-2], found.shape[-2] * found.shape[-1])
    return v


def _activated(step: TwoSlopes, phi, psi, drawn: Draw) -> tuple[jax.Array, jax.Array]:
    u = jnp.matmul(phi, drawn.weights, precision=jax.lax.Precision.HIGHEST)
    slopes = jnp.where(u < 0, step.a, step.b).astype(u.dtype) / u.shape[-1] ** 0.5
    if drawn.slopes is None or drawn.tangents is None:
        return u * slopes, psi
    return u * slopes, _sketched(slopes, psi, drawn.slopes, drawn.tangents)


def _sketched(a: jax.Array, b: jax.Array, first: Half, second: Half) -> jax.Array:
    """Vectors whose products have the mean ``<a, a'> <b, b'>`` (TensorSRHT, arXiv:1909.01410)."""
    return _mixed(a, first) * _mixed(b, second) / len(first.rows) ** 0.5


def _mixed(v: jax.Array, half: Half) -> jax.Array:
    """Some rows of the Hadamard transform of ``v`` with random signs.

    The matrix is the Kronecker product of two small ones.
    """
    d, full = v.shape[-1], _padded(v.shape[-1])
    rows = v.reshape(-1, d) * half.signs[None]
    left = 2 ** (full.bit_length() // 2)
    square = jnp.pad(rows, ((0, 0), (0, full - d))).reshape(-1, left, full // left)
    mixed = jnp.einsum(
        "ij,njk,kl->nil", *(_hadamard(left, v), square, _hadamard(full // left, v)),
        precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip
    mixed = mixed.reshape(len(rows), full)
    return jnp.take(mixed, half.rows, axis=1).reshape(*v.shape[:-1], len(half.rows))


def _hadamard(n: int, like: jax.Array) -> jax.Array:
    return jnp.asarray(hadamard(n), like.dtype)


def _padded(d: int) -> int:
    """The power of two that holds a vector."""
    return 1 << (d - 1).bit_length()


def _pooled(step: Average | Pool, v: jax.Array) -> jax.Array:
    if isinstance(step, Average):
        return step.factor * v.mean(axis=tuple(range(1, v.ndim - 1)))
    for axis, matrix in enumerate(step.matrices, start=1):
        found = jnp.tensordot(
            jnp.asarray(matrix, v.dtype), v, (1, axis), precision=jax.lax.Precision.HIGHEST
        )
        v = jnp.moveaxis(found, 0, axis)
    return v
