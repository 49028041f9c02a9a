r"""What a flow, with or without momentum, leaves of the error of one mode.

Without momentum that is ``exp(-rate t)``; with momentum the mode is a damped oscillator,
``eta e'' + (1 - m) e' + rate e = 0`` with ``e(0) = 1``, ``e'(0) = 0`` and ``eta`` the learning
rate; with ``g = (1 - m) / (2 eta)`` its roots are ``-g +- sqrt(g^2 - rate / eta)``.
"""

import jax
import jax.numpy as jnp

from ntk_lab.predict.modes import Factors

_GONE = 1000.0  # exp(-1000) is zero in float32 and float64


def flow_factors(t: jax.Array, learning_rate: jax.Array | None, momentum: float) -> Factors:
    """From rates to the error left at time ``t``, infinity included, and one minus it."""
    # Both bounds keep derivatives finite at t = inf.
    t = jnp.minimum(t, jnp.finfo(t.dtype).max)

    def factors(rates: jax.Array) -> tuple[jax.Array, jax.Array]:
        if learning_rate is not None:
            return oscillator_factors(rates, t, learning_rate, momentum)
        exponent = jnp.minimum(t * rates, _GONE)
        return jnp.exp(-exponent), -jnp.expm1(-exponent)

    return factors


def oscillator_factors(
    rates: jax.Array, t: jax.Array, learning_rate: jax.Array, momentum: float
) -> tuple[jax.Array, jax.Array]:
    """Error left at time ``t`` and one minus it.

    Parameters
    ----------
    rates
        At least zero, any shape.
    t
        Time, a finite scalar.
    learning_rate, momentum
        Inertia, and decay of the velocity, ``0 <= momentum < 1``.

    Returns
    -------
    surviving, learnt
        In the shape and dtype of ``rates``. Within rounding of one; relative accuracy of
        ``learnt`` is lost where ``t`` is far below ``learning_rate``.
    """
    damping = (1 - momentum) / (2 * learning_rate)
    stiffness = rates / learning_rate
    square = damping**2 - stiffness
    # Each branch sees only its own range; at the border this changes nothing beyond rounding.
    least = jnp.finfo(rates.dtype).eps * damping**2
    swing = jnp.sqrt(jnp.maximum(square, least))
    slow = stiffness / (damping + swing)
    fading = jnp.exp(-jnp.minimum(slow * t, _GONE))
    gap = -jnp.expm1(-jnp.minimum(2 * swing * t, _GONE))
    correction = gap * slow / (2 * swing)
    over = fading * (1 + correction)
    learnt = -jnp.expm1(-jnp.minimum(slow * t, _GONE)) - fading * correction

    pitch = jnp.sqrt(jnp.maximum(-square, least))
    gone = damping * t > _GONE
    angle = pitch * jnp.where(gone, 0, t)
    under = jnp.where(gone, 0, jnp.exp(-jnp.minimum(damping * t, _GONE)))
    under = under * (jnp.cos(angle) + damping / pitch * jnp.sin(angle))
    slow_enough = square > 0
    return jnp.where(slow_enough, over, under), jnp.where(slow_enough, learnt, 1 - under)
