r"""What gradient descent, with or without momentum, leaves of the error of one mode.

With ``x = learning_rate * lambda / n`` and momentum ``m`` the error e of a mode obeys
``e_{k+1} = (1 + m - x) e_k - m e_{k-1}``, with ``e_0 = 1`` and ``e_1 = 1 - x``. The functions
below solve this in closed form for any number of steps, so that rounding does not add up.
"""

import math

import jax
import jax.numpy as jnp


def plain_factors(x: jax.Array, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``(1 - x)^steps`` and one minus it, without cancellation for small ``x``.

    Parameters
    ----------
    x
        Learning rate times rate, positive, any shape.
    steps
        Number of steps, an integer scalar.

    Returns
    -------
    surviving, learnt
        In the shape and dtype of ``x``.
    """
    # |1 - x| = 1 - y, with y exact by Sterbenz' lemma for 1 <= x <= 2.
    y = jnp.minimum(jnp.where(x < 1, x, 2 - x), _below_one(x))
    exponent = steps.astype(x.dtype) * jnp.log1p(-y)
    surviving = jnp.where(x < 1, 1, _parity(steps, x)) * jnp.exp(exponent)
    return surviving, jnp.where(x < 1, -jnp.expm1(exponent), 1 - surviving)


def momentum_factors(
    x: jax.Array, steps: jax.Array, momentum: float
) -> tuple[jax.Array, jax.Array]:
    """Error left after heavy-ball steps and one minus it, for ``0 < momentum < 1``.

    The roots of ``mu^2 - (1 + m - x) mu + m`` are real and positive for
    ``x < (1 - sqrt(m))^2``, complex up to ``(1 + sqrt(m))^2``, real and negative beyond.

    Parameters
    ----------
    x
        Learning rate times rate, positive, any shape.
    steps
        Number of steps, an integer scalar.
    momentum
        Decay ``m`` of the velocity.

    Returns
    -------
    surviving, learnt
        In the shape and dtype of ``x``.
    """
    low, high = _critical(momentum)
    # Each branch sees only its own range: derivatives of the others stay finite.
    inside = 8 * float(jnp.finfo(x.dtype).eps)
    slow = _slow(jnp.minimum(x, low * (1 - inside)), steps, momentum)
    fast = _fast(jnp.maximum(x, high * (1 + inside)), steps, momentum)
    middle = _oscillating(jnp.clip(x, low * (1 + inside), high * (1 - inside)), steps, momentum)
    surviving, learnt = (
        jnp.where(x < low, a, jnp.where(x > high, b, c))
        for a, b, c in zip(slow, fast, middle, strict=True)
    )
    return surviving, learnt


def _slow(x: jax.Array, steps: jax.Array, m: float) -> tuple[jax.Array, jax.Array]:
    gap, total = _gap(x, m), 1 - m + x
    delta = 2 * x / (total + gap)  # 1 - the larger root, without cancellation
    correction = _correction(1 - delta, delta, gap, steps)
    power = steps.astype(x.dtype) * jnp.log1p(-delta)
    surviving = jnp.exp(power) * (1 + correction)
    return surviving, -jnp.expm1(power) - jnp.exp(power) * correction


def _fast(x: jax.Array, steps: jax.Array, m: float) -> tuple[jax.Array, jax.Array]:
    gap, total = _gap(x, m), 1 - m + x
    delta = (total + gap) / 2  # 1 - the larger root, which is negative
    correction = _correction(delta - 1, delta, gap, steps)
    power = steps.astype(x.dtype) * jnp.log1p(delta - 2)
    surviving = _parity(steps, x) * jnp.exp(power) * (1 + correction)
    return surviving, 1 - surviving


def _oscillating(x: jax.Array, steps: jax.Array, m: float) -> tuple[jax.Array, jax.Array]:
    low, high = _critical(m)
    count = steps.astype(x.dtype)
    # Angles above pi / 2 are measured from pi: at both ends only small angles are accurate.
    near, far = jnp.sqrt(x - low), jnp.sqrt(high - x)
    swing = (1 - m - x) / (near * far)
    flip = x > 1 + m
    angle = count * 2 * jnp.arctan2(jnp.minimum(near, far), jnp.maximum(near, far))
    swing, sign = jnp.where(flip, -swing, swing), jnp.where(flip, _parity(steps, x), 1)
    envelope = jnp.exp(count * (math.log(m) / 2))
    surviving = sign * envelope * (jnp.cos(angle) + swing * jnp.sin(angle))
    return surviving, 1 - surviving


def _critical(m: float) -> tuple[float, float]:
    """Where the two roots coincide: ``(1 - sqrt(m))^2`` and ``(1 + sqrt(m))^2``."""
    root = math.sqrt(m)
    return ((1 - m) / (1 + root)) ** 2, (1 + root) ** 2


def _gap(x: jax.Array, m: float) -> jax.Array:
    """Distance of the two real roots."""
    low, high = _critical(m)
    return jnp.sqrt((low - x) * (high - x))


def _correction(size: jax.Array, delta: jax.Array, gap: jax.Array, steps: jax.Array) -> jax.Array:
    """What the smaller root adds: ``|e| = size^steps (1 + correction)``.

    ``size`` is the absolute value of the larger root ``1 - delta``; that of the smaller root is
    ``size - gap``.
    """
    ratio = jnp.log1p(-jnp.minimum(gap / size, _below_one(size)))
    return -jnp.expm1(steps.astype(size.dtype) * ratio) * delta * (size - gap) / gap


def _parity(steps: jax.Array, x: jax.Array) -> jax.Array:
    """``(-1)^steps``."""
    return (1 - 2 * (steps % 2)).astype(x.dtype)


def _below_one(x: jax.Array) -> float:
    return 1 - float(jnp.finfo(x.dtype).eps)
