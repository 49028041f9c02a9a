"""What turns the logits of attention into weights, and its derivative."""

import jax
import jax.numpy as jnp

_FUNCTIONS = {"identity": lambda x: x, "relu": lambda x: jnp.maximum(x, 0), "abs": jnp.abs}
_SLOPES = {
    "identity": jnp.ones_like,
    "relu": lambda x: jnp.where(x > 0, 1, 0).astype(x.dtype),
    "abs": jnp.sign,
}
MECHANISMS = ("softmax", *_FUNCTIONS)


# Logit of an absent position: its exponential is zero beside that of any other.
_ABSENT = -1e30


def attention_weights(
    mechanism: str, causal: bool, logits: jax.Array, present: jax.Array | None = None
) -> jax.Array:
    """Attention over the last axis of ``(..., s, s)``; ``causal``: none to later positions.

    ``present`` says which positions can be attended to, of a shape that broadcasts. Where none
    can, softmax weights are equal.
    """
    if present is not None:
        logits = jnp.where(present, logits, _ABSENT if mechanism == "softmax" else 0)
    seen = jnp.broadcast_to(jnp.tri(*logits.shape[-2:], dtype=bool), logits.shape)
    if mechanism == "softmax":
        return jax.nn.softmax(logits, axis=-1, where=seen if causal else None)
    weights = _FUNCTIONS[mechanism](logits)
    return jnp.where(seen, weights, 0) if causal else weights


def attention_slopes(mechanism: str, causal: bool, logits: jax.Array) -> jax.Array:
    """Derivative of an elementwise mechanism."""
    slope = _SLOPES[mechanism](logits)
    return jnp.tril(slope) if causal else slope
