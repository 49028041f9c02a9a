"""Conjugate gradients in double precision on NumPy arrays, whatever precision JAX is set to."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.solve.conjugate_gradient import Solution, conjugate_gradient

HostProduct = Callable[[np.ndarray], np.ndarray]


def on_host(function: HostProduct) -> Callable[[jax.Array], jax.Array]:
    """A function of NumPy arrays as one of JAX arrays, run in the precision of this moment."""
    outside = jnp.result_type(float) == jnp.float64

    def call(v: jax.Array) -> jax.Array:
        host = np.asarray(v)
        with jax.enable_x64(outside):
            found = function(host)
        return jnp.asarray(found)

    return call


def host_conjugate_gradient(
    apply: HostProduct,
    y: np.ndarray,
    *,
    precondition: HostProduct,
    exact: HostProduct | None = None,
    start: np.ndarray | None = None,
    watch: Callable[[int, np.ndarray, np.ndarray], object] | None = None,
    tol: float,
    max_iterations: int,
) -> Solution:
    """As `conjugate_gradient`; all functions take and return float64 NumPy arrays.

    They run with JAX's precision as the caller has it, so that they may compute kernels.
    """
    outside = jnp.result_type(float) == jnp.float64

    def tell(used: int, value: Any, relative: np.ndarray) -> None:
        host = np.asarray(value)
        if watch is not None:
            with jax.enable_x64(outside):
                watch(used, host, relative)

    products = on_host(apply), on_host(precondition)
    exactly = None if exact is None else on_host(exact)
    with jax.enable_x64(True):
        found = conjugate_gradient(
            products[0],
            jnp.asarray(y, jnp.float64),
            precondition=products[1],
            exact=exactly,
            start=None if start is None else jnp.asarray(start, jnp.float64),
            watch=tell,
            tol=tol,
            max_iterations=max_iterations,
        )
        value, residual = np.asarray(found.value), np.asarray(found.relative_residual)
    return found._replace(value=value, relative_residual=residual)
