r"""What gradient descent with Nesterov's momentum leaves of the error of one mode.

With ``x = learning_rate * lambda / n`` and momentum ``m``, as optax takes it,
``V_{k+1} = x e_k + m V_k`` and ``e_{k+1} = e_k - x e_k - m V_{k+1}``, from ``e_0 = 1, V_0 = 0``.
The step is a 2x2 matrix ``I + N``; its powers are found by squaring, in the form ``I + D`` so
that small steps are not lost against the identity.
"""

import jax
import jax.numpy as jnp

_BITS = 31  # steps are below 2^31
_Matrix = tuple[jax.Array, ...]  # 11, 12, 21, 22


def nesterov_factors(
    x: jax.Array, steps: jax.Array, momentum: float
) -> tuple[jax.Array, jax.Array]:
    """Error left after Nesterov steps and one minus it.

    Parameters
    ----------
    x
        Learning rate times rate, at least zero, any shape.
    steps
        Number of steps, an integer scalar.
    momentum
        Decay ``m`` of the velocity, ``0 <= m < 1``.

    Returns
    -------
    surviving, learnt
        In the shape and dtype of ``x``.
    """
    m = momentum
    step = (-(1 + m) * x, jnp.full_like(x, -m * m), x, jnp.full_like(x, m - 1))

    def bit(i: jax.Array, carry: tuple[_Matrix, _Matrix]) -> tuple[_Matrix, _Matrix]:
        result, power = carry
        together = _both(result, power)
        taken = (steps >> i) & 1 == 1
        result = tuple(jnp.where(taken, a, b) for a, b in zip(together, result, strict=True))
        return result, _both(power, power)

    zero = tuple(jnp.zeros_like(x) for _ in range(4))
    # A scan, unlike a loop, has derivatives in both modes.
    (result, _), _ = jax.lax.scan(
        lambda carry, i: (bit(i, carry), None), (zero, step), jnp.arange(_BITS, dtype=steps.dtype)
    )
    return 1 + result[0], -result[0]


def _both(a: _Matrix, b: _Matrix) -> _Matrix:
    """``D`` of ``(I + A)(I + B) = I + D``."""
    return (
        a[0] + b[0] + (a[0] * b[0] + a[1] * b[2]),
        a[1] + b[1] + (a[0] * b[1] + a[1] * b[3]),
        a[2] + b[2] + (a[2] * b[0] + a[3] * b[2]),
        a[3] + b[3] + (a[2] * b[1] + a[3] * b[3]),
    )
