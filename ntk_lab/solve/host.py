"""Conjugate gradients in double precision on NumPy arrays, whatever precision JAX is set to."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.solve.conjugate_gradient import Solution, conjugate_gradient

HostProduct = Callable[[np.ndarray], np.ndarray]


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

    def on_device(function: HostProduct) -> Callable[[jax.Array], jax.Array]:
        def call(v: jax.Array) -> jax.Array:
            host = np.asarray(v)
            with jax.enable_x64(outside):
                found = function(host)
            return jnp.asarray(found)

        return call

    def tell(used: int, value: Any, relative: np.ndarray) -> None:
        host = np.asarray(value)
        if watch is not None:
            with jax.enable_x64(outside):
                watch(used, host, relative)

    with jax.enable_x64(True):
        found = conjugate_gradient(
            on_device(apply),
            jnp.asarray(y, jnp.float64),
            precondition=on_device(precondition),
            exact=None if exact is None else on_device(exact),
            start=None if start is None else jnp.asarray(start, jnp.float64),
            watch=tell,
            tol=tol,
            max_iterations=max_iterations,
        )
        value, residual = np.asarray(found.value), np.asarray(found.relative_residual)
    return found._replace(value=value, relative_residual=residual)
