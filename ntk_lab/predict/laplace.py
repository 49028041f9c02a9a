"""The Laplace kernel, which is the usual one of recursive feature machines."""

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError


def laplace_kernel(x1: jax.Array, x2: jax.Array | None = None, bandwidth: float = 1.0) -> jax.Array:
    """Laplace kernel ``exp(-|x1 - x2| / bandwidth)``, shape ``(n1, n2)``.

    Its functions are close to those of the NTK of a ReLU network (arXiv:2007.01580). With inputs
    ``x A`` for ``x`` it is the kernel of the Mahalanobis metric ``M = A A^T``.

    Parameters
    ----------
    x1, x2
        Inputs ``(n1, d)`` and ``(n2, d)`` of one real dtype; ``x2=None`` means ``x1``.
    bandwidth
        Length over which the kernel falls by ``e``, in units of the inputs.

    Returns
    -------
    jax.Array
        Differentiable in the inputs; the kink where they coincide has derivative zero.

    Raises
    ------
    InputError
        Inputs that do not fit together, a bandwidth that is not positive.

    Notes
    -----
    Squared distances are ``|x1|^2 + |x2|^2 - 2 x1 x2^T`` of centred inputs, one matrix product;
    what is below ``8 eps`` of the sum of both squares is taken to coincide. Distances below 1e-3
    (float32) or 5e-8 (float64) of the size of the inputs are therefore zero.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> k = ntk.predict.laplace_kernel(jnp.array([[0.0, 0.0], [3.0, 4.0]]), bandwidth=5.0)
    >>> bool(abs(k[0, 1] - jnp.exp(-1.0)) < 1e-6)
    True
    """
    other = x1 if x2 is None else x2
    if x1.ndim != 2 or other.ndim != 2 or x1.shape[1] != other.shape[1]:
        raise InputError(
            f"inputs have shapes {x1.shape} and {other.shape}; expected (n1, d) and (n2, d). "
            "Flatten images first."
        )
    if not bandwidth > 0:
        raise InputError(f"bandwidth is {bandwidth}; it must be positive.")
    centre = jax.lax.stop_gradient(other.mean(0, keepdims=True))
    x1, other = x1 - centre, other - centre
    squares1, squares2 = (jnp.sum(x * x, axis=1) for x in (x1, other))
    total = squares1[:, None] + squares2[None, :]
    square = total - 2 * jnp.matmul(x1, other.T, precision="highest")
    apart = square > 8 * jnp.finfo(square.dtype).eps * total
    # The inner choice keeps the root's derivative finite, the outer one makes it zero.
    distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)
    return jnp.exp(-distance / bandwidth)
