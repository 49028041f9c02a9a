"""Largest eigenvalues of the Hessian of a loss, by products with it."""

from typing import Any, NamedTuple

import jax

from ntk_lab.empirical.ntk import Model, Params
from ntk_lab.errors import ConvergenceError, InputError
from ntk_lab.losses import Loss
from ntk_lab.solve import Eigenpairs, top_eigenpairs
from ntk_lab.train.objective import Objective, flattened


class HessianEigenpairs(NamedTuple):
    """Largest eigenvalues of a Hessian.

    Attributes
    ----------
    eigenvalues
        Of largest value (not magnitude), in descending order, ``(top,)``.
    directions
        Their eigenvectors, each of norm 1 and a pytree like the parameters.
    residual_norms
        ``|H v - value v|`` of each, ``(top,)``: within this distance of the value there is an
        eigenvalue.
    products
        Products of the Hessian with one vector.
    """

    eigenvalues: jax.Array
    directions: tuple[Params, ...]
    residual_norms: jax.Array
    products: int


def hessian_eigenvalues(
    f: Model,
    params: Params,
    x: Any,
    y: Any,
    *,
    loss: str | Loss = "squared",
    top: int = 1,
    gauss_newton: bool = False,
    tol: float = 1e-3,
    block: int | None = None,
    max_products: int | None = None,
    batch: int | None = None,
    key: jax.Array | None = None,
) -> HessianEigenpairs:
    """Largest eigenvalues of the Hessian of the training loss, without the Hessian.

    Of ``L(params) = mean_i loss(f(params, x_i), y_i)``. The first is the sharpness: gradient
    descent on a quadratic is stable up to a learning rate of 2 over it (arXiv:2103.00065).

    Parameters
    ----------
    f, params
        Any function and its parameters; those that are not floating point are held constant.
    x, y
        Training inputs, and targets ``(n, C)``, ``(n,)`` or class numbers ``(n,)``.
    loss
        One of :mod:`ntk_lab.losses`, by name or as a function.
    top
        How many eigenvalues.
    gauss_newton
        Of ``J^T l'' J`` instead, the part of the Hessian without second derivatives of ``f``: for
        squared error its eigenvalues are those of the NTK over ``n``.
    tol
        Bound on residual norms relative to the largest eigenvalue. Eigenvalues are known much
        better than that, to about ``tol^2`` where the next one is far away.
    block
        Vectors at a time, by default ``top``, from 2 to 8. An eigenvalue that occurs more often
        than that may be found too few times.
    max_products
        Bound on products with single vectors; default ``50 (top + block)``.
    batch
        Examples at a time, by default all.
    key
        Decides the vectors to start from; does not change the result beyond ``tol``.

    Returns
    -------
    HessianEigenpairs
        In the dtype of the parameters.

    Raises
    ------
    InputError
        Shapes that do not fit, unknown losses, ``top`` out of range.
    ConvergenceError
        Residuals above ``tol`` once the products are used up; its ``result`` holds the
        `HessianEigenpairs` so far.
    NumericalError
        Products that are not finite.

    Notes
    -----
    Block Lanczos iteration (:func:`ntk_lab.solve.top_eigenpairs`); for the largest eigenvalue
    alone :func:`sharpness` needs less memory. A product costs about four
    evaluations of ``f`` with their gradients; memory for ``4 top + 12 block`` vectors like the
    parameters.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> x, y = jnp.diag(jnp.array([2.0, 1.0])), jnp.ones((2, 1))  # H = x^T x / n
    >>> found = ntk.train.hessian_eigenvalues(lambda w, x: x @ w, jnp.zeros((2, 1)), x, y, top=2)
    >>> print(found.eigenvalues)
    [2.  0.5]
    """
    objective = Objective(f, params, x, y, loss, batch)
    settings = {"tol": tol, "block": block, "max_products": max_products, "key": key}
    return top_of(objective, params, top, gauss_newton, **settings)


def top_of(
    objective: Objective,
    params: Params,
    top: int,
    gauss_newton: bool = False,
    *,
    tol: float,
    block: int | None = None,
    max_products: int | None = None,
    key: jax.Array | None = None,
) -> HessianEigenpairs:
    """As :func:`hessian_eigenvalues`, of an objective whose programs are compiled once."""
    vector, fill = flattened(params)
    if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= len(vector):
        raise InputError(f"top={top!r}; it must be an integer from 1 to {len(vector)} parameters.")
    block = min(max(top, 2), 8) if block is None else block

    def shaped(found: Eigenpairs) -> HessianEigenpairs:
        directions = tuple(fill(v) for v in found.eigenvectors.T)
        return HessianEigenpairs(found.eigenvalues, directions, *found[2:])

    try:
        return shaped(
            top_eigenpairs(
                lambda columns: objective.product(params, columns, gauss_newton),
                len(vector),
                top,
                key=jax.random.key(0) if key is None else key,
                dtype=vector.dtype,
                block=block,
                tol=tol,
                max_products=50 * (top + block) if max_products is None else max_products,
            )
        )
    except ConvergenceError as error:
        error.result = shaped(error.result)  # type: ignore[arg-type]
        raise


def best(compute: Any, *args: Any, **named: Any) -> Any:
    """The pairs, or those so far, whose residuals tell."""
    try:
        return compute(*args, **named)
    except ConvergenceError as error:
        return error.result
