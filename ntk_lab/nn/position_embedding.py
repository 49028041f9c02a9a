"""Covariance between positions of random positional embeddings."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.errors import InputError

DECAYS = {
    "exp": lambda d, c: np.exp(-c * d),
    "power": lambda d, c: 1 / (1 + c * d),
}
# Share of the largest eigenvalue below which a negative one is taken for rounding.
_ROUNDING = 1e-10


def embedding_covariance(
    sizes: tuple[int, ...], decay: tuple[str, float] | None, p_norm: float
) -> np.ndarray:
    """Covariance between all positions, ``(s, s)`` with positions flattened.

    ``decay=None``: the identity; ``("exp", c)``: ``exp(-c d)``; ``("power", c)``:
    ``1 / (1 + c d)``, where ``d`` is the sum over axes of ``|i - j|^p_norm``.
    """
    if decay is None:
        return np.eye(math.prod(sizes))
    places = np.indices(sizes).reshape(len(sizes), -1)
    apart = np.abs(places[:, :, None] - places[:, None, :]).astype(float)
    return DECAYS[decay[0]]((apart**p_norm).sum(axis=0), decay[1])


def embedding_root(
    sizes: tuple[int, ...], decay: tuple[str, float] | None, p_norm: float
) -> np.ndarray:
    """Symmetric root of :func:`embedding_covariance`; InputError where there is none."""
    values, vectors = np.linalg.eigh(embedding_covariance(sizes, decay, p_norm))
    if values[0] < -_ROUNDING * values[-1]:
        raise InputError(
            f"pos_emb_decay={decay} with pos_emb_p_norm={p_norm} is not a covariance: its smallest "
            f"eigenvalue over {sizes} positions is {values[0]:.2g}. Norms with p from 0 to 2 are."
        )
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


def mix_positions(
    embedding: jax.Array, sizes: tuple[int, ...], decay: tuple[str, float] | None, p_norm: float
) -> jax.Array:
    """Embeddings ``(s, channels)`` with that covariance, from independent ones."""
    if decay is None:
        return embedding
    return jnp.asarray(embedding_root(sizes, decay, p_norm), embedding.dtype) @ embedding


def embed(x: jax.Array, embedding: jax.Array, how: str) -> jax.Array:
    """Inputs ``(n, s, channels)`` with embeddings ``(1, s, ...)`` added or appended."""
    if how == "sum":
        return x + embedding
    appended = jnp.broadcast_to(embedding, (len(x), *embedding.shape[1:]))
    return jnp.concatenate([x, appended], axis=2)


def check_decay(decay: tuple[str, float] | None, p_norm: float) -> None:
    """InputError for a decay that does not exist."""
    if decay is not None and not (
        isinstance(decay, tuple) and len(decay) == 2 and decay[0] in DECAYS and decay[1] >= 0
    ):
        raise InputError(
            f"pos_emb_decay={decay!r}; choose None, ('exp', c) or ('power', c) with c >= 0."
        )
    if not 0 < p_norm < float("inf"):
        raise InputError(f"pos_emb_p_norm={p_norm}; it must be positive and finite.")
