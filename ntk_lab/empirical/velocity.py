"""How fast the empirical kernel moves in training."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.compiled import compiled
from ntk_lab.empirical import engine
from ntk_lab.empirical.arguments import Arguments, Select, arguments, cotangents, result_of
from ntk_lab.empirical.checks import check_examples, check_finite
from ntk_lab.empirical.ntk import Model, Outputs, Params
from ntk_lab.empirical.structured.build import build
from ntk_lab.empirical.tiles import default_memory
from ntk_lab.errors import InputError

Loss = Callable[[jax.Array, Any], jax.Array]


def kernel_velocity(
    f: Model,
    params: Params,
    x1: Any,
    x2: Any = None,
    *,
    y: Any = None,
    x: Any = None,
    loss: Loss | None = None,
    direction: Params | None = None,
    outputs: Outputs | Any = "full",
    memory: float | None = None,
    select: Select | None = None,
) -> jax.Array:
    """Time derivative of the empirical NTK as the parameters move.

    ``dTheta/dt = dJ(x1) J(x2)^T + J(x1) dJ(x2)^T``, with ``dJ`` the derivative of the Jacobian
    along ``dtheta/dt``: along ``direction``, or under gradient flow, ``dtheta/dt = -grad L``. Zero
    for a model that is linear in its parameters; compared with the kernel and the time of training
    it tells whether the kernel may be taken as constant.

    Parameters
    ----------
    f, params, x1, x2, outputs, select
        As for :func:`ntk`. Parameters that ``select`` leaves out do not move under the flow.
    y
        Targets of gradient flow at ``x``.
    x
        Training inputs; by default ``x1``.
    loss
        ``loss(f(params, x), y)``, a scalar; by default ``1/(2n) sum_i |f(x_i) - y_i|^2``, for ``y``
        of the shape of the outputs.
    direction
        In place of ``y``: ``dtheta/dt`` itself, a pytree like ``params``. Entries of parameters
        that are not floating point do not matter.
    memory
        Bytes that may be used beside parameters, inputs and the result, for the kernel (the
        gradient of the loss is taken of the whole batch); default a quarter of what is free.

    Returns
    -------
    jax.Array
        ``dTheta/dt``, of the shape and dtype that :func:`ntk` returns. Time is
        ``learning_rate * steps``.

    Raises
    ------
    InputError
        As for :func:`ntk`; neither or both of ``y`` and ``direction``; shapes that do not fit.
    NumericalError
        Values that are not finite.

    Notes
    -----
    A forward derivative of the whole computation of the kernel, with its structured rules: about
    three times the cost of the kernel, and no Hessian of any parameter. In several tiles the
    features of an example are computed again for each. The first step of the hierarchy of
    arXiv:1909.08156.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda w, x: w**2 * x  # Theta = 4 w^2 x x', dw/dt = -2 w x (w^2 x - y) = -4 at w = 1
    >>> x, y = jnp.ones((1, 1)), -jnp.ones((1, 1))
    >>> ntk.empirical.kernel_velocity(f, jnp.float32(1), x, y=y, outputs="trace")
    Array([[-32.]], dtype=float32)
    """
    args = arguments(f, params, x1, x2, select)
    mode, basis, squeeze = cotangents(outputs, args)
    limit = default_memory() if memory is None else memory
    program = build(f, args.signature(structured=True, merge=True))
    check_examples(program, args)
    if (y is None) == (direction is None):
        raise InputError(
            f"{'neither' if y is None else 'both'} y and direction given; give the targets y of "
            "gradient flow, or the direction in which the parameters move."
        )
    if direction is None:
        tangents = _flow(args, x1 if x is None else x, y, loss)
    elif x is None and loss is None:
        tangents = _leaves(args, direction)
    else:
        raise InputError("x and loss belong to gradient flow, with y; leave them or direction out.")
    # The derivative of everything is held beside it.
    job = engine.job(args, program, mode, basis, limit / 3)
    n1, n2 = args.sizes
    result = engine.Result((n1, n2, *job.trailing), args.dtype, job.concrete)
    if job.parts and 0 not in (n1, n2, len(basis)):
        for place in engine.places(job):
            result.put(job, place, _tile(job, tangents, place))
    velocity = result.value()
    check_finite(velocity, args)
    return velocity[:, :, 0, 0] if squeeze else velocity


def _tile(job: engine.Job, tangents: list[Any], place: engine.Place) -> jax.Array:
    args, (i, j, p, q) = job.args, place
    inputs2 = args.inputs1 if args.inputs2 is None else args.inputs2
    same = args.inputs2 is None and i == j and p == q
    size = job.tiling.block
    x1 = [engine.block(leaf, i, min(size, len(leaf))) for leaf in args.inputs1]
    x2 = None if same else [engine.block(leaf, j, min(size, len(leaf))) for leaf in inputs2]
    moving = tuple(k for k, tangent in enumerate(tangents) if tangent is not None)
    along = [tangents[k] for k in moving]
    bases = engine.block(job.basis, p), engine.block(job.basis, q)
    tile = _derivative(job.recipe, moving, args.leaves, along, (x1, x2), bases)
    return engine.finished(job, place, tile)


@compiled(sequential=True, static_argnums=(0, 1))
def _derivative(recipe, moving, leaves, along, inputs, bases) -> jax.Array:
    group = (tuple(range(len(recipe.parts))),)

    def kernel(values):
        full = list(leaves)
        for k, value in zip(moving, values, strict=True):
            full[k] = value
        return engine.once(recipe, group, full, inputs, bases)[0]

    return jax.jvp(kernel, ([leaves[k] for k in moving],), (along,))[1]


def _flow(args: Arguments, x: Any, y: Any, loss: Loss | None) -> list[Any]:
    """``-grad L`` for each parameter, None for those that do not move."""
    tree = jax.tree.structure(args.params)
    measure = _squared_error if loss is None else loss
    shape = result_of(args.f, args.params, x).shape
    if loss is None and jnp.shape(y) != shape:
        raise InputError(
            f"y has shape {jnp.shape(y)}, and f(params, x) has {shape}; they must be equal."
        )

    try:
        gradient = _gradient(args.f, measure, tree, args.selected)
    except TypeError:  # functions that cannot be hashed are compiled anew
        gradient = _gradient.__wrapped__(args.f, measure, tree, args.selected)
    tangents: list[Any] = [None] * len(args.leaves)
    found = gradient([args.leaves[k] for k in args.selected], args.leaves, x, y)
    for k, slope in zip(args.selected, found, strict=True):
        tangents[k] = -slope
    return tangents


@lru_cache(maxsize=64)
def _gradient(f: Model, measure: Loss, tree: Any, selected: tuple[int, ...]) -> Any:
    """Gradient of the loss by the selected parameters, compiled."""

    def value(chosen, leaves, x, y):
        full = list(leaves)
        for k, leaf in zip(selected, chosen, strict=True):
            full[k] = leaf
        return measure(f(jax.tree.unflatten(tree, full), x), y)

    return compiled(jax.grad(value), sequential=True)


def _squared_error(outputs: jax.Array, y: Any) -> jax.Array:
    return ((outputs - jnp.asarray(y, outputs.dtype)) ** 2).sum() / (2 * len(outputs))


def _leaves(args: Arguments, direction: Any) -> list[Any]:
    """Tangents of the floating-point parameters, from a tree like them."""
    trees = jax.tree.structure(direction), jax.tree.structure(args.params)
    if trees[0] != trees[1]:
        raise InputError(f"direction is a tree {trees[0]} and params {trees[1]}; expected equal.")
    tangents = []
    for path, leaf, given in zip(args.paths, args.leaves, jax.tree.leaves(direction), strict=True):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            tangents.append(None)
        elif jnp.shape(given) != leaf.shape:
            raise InputError(
                f"direction has shape {jnp.shape(given)} at {path or 'params'}, and the parameter "
                f"{leaf.shape}; they must be equal."
            )
        else:
            tangents.append(jnp.asarray(given, leaf.dtype))
    return tangents
