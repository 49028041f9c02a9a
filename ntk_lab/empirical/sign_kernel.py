"""The kernel of sign descent: gradients against signs of gradients."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.arguments import Select, arguments
from ntk_lab.empirical.operator_base import whole
from ntk_lab.errors import InputError, NumericalError


def sign_kernel(
    f: Any, params: Any, x1: Any, x2: Any = None, *, select: Select | None = None, batch: int = 16
) -> jax.Array:
    """Empirical sign kernel ``K[i, j] = <J(x1_i), sign(J(x2_j))>``, not symmetric.

    A step of sign descent on one example ``x2_j`` moves the output at ``x1_i`` by
    ``-learning_rate * K[i, j] * sign(dloss/df)``, to first order; Adam's first steps are nearly
    such steps. `ntk_lab.predict.sign_descent` trains with it.

    Parameters
    ----------
    f, params, x1, x2, select
        As for :func:`ntk`.
    batch
        Examples whose gradients are held at a time, in each of the two batches.

    Returns
    -------
    jax.Array
        Shape ``(n1, n2)`` for one output, ``(n1, n2, C, C)`` for several: derivative of output
        ``a`` at ``x1_i`` along the sign of the gradient of output ``b`` at ``x2_j``.

    Raises
    ------
    InputError, NumericalError
        As for :func:`ntk`.

    Notes
    -----
    Unlike the NTK it depends on the basis of the parameters, is not positive semi-definite, and
    counts every parameter alike however small its gradient; gradients that are exactly zero do not
    move. Memory: ``2 * batch * C`` gradients; time: their products, ``n1 n2 C^2`` times the number
    of parameters. In the dtype of the parameters.

    References
    ----------
    .. [1] Malladi et al. 2023, arXiv:2210.05643 (the asymmetric SignGD kernel).

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> x = jnp.array([[1.0, -2.0], [0.5, 1.0]])
    >>> print(ntk.empirical.sign_kernel(lambda w, x: x @ w, jnp.ones((2, 1)), x))
    [[ 3.  -1. ]
     [-0.5  1.5]]
    """
    args = arguments(f, params, x1, x2, select)
    batch = whole("batch", batch, 1)
    if not args.outputs:
        raise InputError("the function has no outputs, so there is no kernel.")
    (n1, n2), outputs = args.sizes, args.outputs
    rows = partial(_gradients, f, args.selected, jax.tree.structure(params))
    second = args.x1 if x2 is None else args.x2
    columns = []
    for j in range(0, n2, batch):
        signs = jnp.sign(rows(args.leaves, _some(second, j, batch)))
        column = [
            jnp.matmul(rows(args.leaves, _some(args.x1, i, batch)), signs.T, precision="highest")
            for i in range(0, n1, batch)
        ]
        columns.append(jnp.concatenate([*column, jnp.zeros((0, len(signs)), args.dtype)]))
    kernel = jnp.concatenate([*columns, jnp.zeros((n1 * outputs, 0), args.dtype)], axis=1)
    if is_concrete(kernel) and not bool(jnp.isfinite(kernel).all()):
        raise NumericalError(
            "the sign kernel holds NaN or infinity: look for such values in parameters and inputs."
        )
    if outputs == 1:
        return kernel
    return kernel.reshape(n1, outputs, n2, outputs).transpose(0, 2, 1, 3)


def _some(x: Any, start: int, count: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[start : start + count], x)


@compiled(static_argnums=(0, 1, 2))
def _gradients(
    f: Any, selected: tuple[int, ...], tree: Any, leaves: list[Any], x: Any
) -> jax.Array:
    """Gradients of each output of each example, as rows ``(n C, P)``."""

    def outputs(chosen: list[Any], example: Any) -> jax.Array:
        whole = list(leaves)
        for index, leaf in zip(selected, chosen, strict=True):
            whole[index] = leaf
        params = jax.tree.unflatten(tree, whole)
        return f(params, jax.tree.map(lambda leaf: leaf[None], example)).reshape(-1)

    chosen = [leaves[i] for i in selected]
    jacobians = jax.vmap(jax.jacrev(outputs), in_axes=(None, 0))(chosen, x)
    dtype = jnp.result_type(*(leaf.dtype for leaf in chosen))
    flat = [j.reshape(j.shape[0] * j.shape[1], -1).astype(dtype) for j in jacobians]
    return jnp.concatenate(flat, axis=1)
