"""Sketched NTK: random projections of the Jacobian as features, by forward passes alone."""

from itertools import pairwise
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.empirical import products
from ntk_lab.empirical.arguments import Select, arguments
from ntk_lab.empirical.checks import check_examples, check_finite
from ntk_lab.empirical.ntk import Model
from ntk_lab.empirical.operator_base import whole
from ntk_lab.empirical.products import Network
from ntk_lab.empirical.structured.build import build
from ntk_lab.empirical.tiles import default_memory
from ntk_lab.errors import InputError

# Groups of directions whose spread gives the standard error, itself known to 9% then.
_GROUPS = 64


class SketchedKernel(NamedTuple):
    """An unbiased estimate of the empirical NTK from random features.

    Attributes
    ----------
    kernel
        ``phi(x1) phi(x2)^T``, of the shape that :func:`ntk_lab.empirical.ntk` returns.
    standard_error
        Of each entry, from the spread over groups of directions.
    features1, features2
        ``phi``: for ``outputs="full"`` of shape ``(n, C, dimension)``; for ``"trace"`` of shape
        ``(n, C dimension)``. The second are the first where ``x2`` is ``x1``.
    dimension
        Number of random directions.
    """

    kernel: jax.Array
    standard_error: jax.Array
    features1: jax.Array
    features2: jax.Array
    dimension: int


def sketched_ntk(
    f: Model,
    params: Any,
    x1: Any,
    x2: Any = None,
    *,
    key: jax.Array,
    dimension: int,
    outputs: Literal["full", "trace"] = "full",
    select: Select | None = None,
    memory: float | None = None,
    batch: int | None = None,
) -> SketchedKernel:
    """Unbiased random-feature estimate of the empirical NTK, with its standard error.

    Features ``phi(x) = J(x) S / sqrt(dimension)`` with random signs ``S``, so that
    ``E phi(x1) phi(x2)^T = J(x1) J(x2)^T``.

    Parameters
    ----------
    f, params, x1, x2, select
        As for :func:`ntk`.
    key
        Decides the directions; direction ``i`` is the same for every ``dimension``, batch and
        limit.
    dimension
        Number of random directions in the space of parameters, at least 2.
    outputs
        ``"full"``, shape ``(n1, n2, C, C)``, or ``"trace"``, the mean over outputs ``(n1, n2)``.
    memory, batch
        As for :func:`operator`; the result and the features come beside the limit.

    Returns
    -------
    SketchedKernel
        In the dtype of the parameters; ``features1`` also serve as features of a linear model.

    Raises
    ------
    InputError, NumericalError
        As for :func:`ntk`; a dimension that is too small.

    Notes
    -----
    Costs ``dimension`` forward-mode passes of ``f``, whatever the number of outputs, and one matrix
    product. The variance of an entry is at most ``(Theta_ii Theta_jj + Theta_ij^2) / dimension``:
    relative errors of ``sqrt(2 / dimension)`` on the diagonal, and more off it. The spread is
    taken over up to 64 groups of directions. Random projections of gradients: arXiv:2303.14186.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda w, x: x @ w
    >>> k = ntk.empirical.sketched_ntk(
    ...     f, jnp.ones(3), jnp.eye(3), key=jax.random.key(0), dimension=100
    ... )
    >>> print(k.kernel.shape, k.features1.shape, k.kernel[:, :, 0, 0].diagonal().round(3))
    (3, 3, 1, 1) (3, 1, 100) [1. 1. 1.]
    """
    args = arguments(f, params, x1, x2, select)
    dimension = whole("dimension", dimension, 2)
    if outputs not in ("full", "trace"):
        raise InputError(f"outputs={outputs!r}; choose 'full' or 'trace'.")
    program = build(f, args.signature(structured=True, merge=True))
    check_examples(program, args)
    limit = default_memory() if memory is None else memory
    net = products.network(args, program, limit, batch)
    first, second = [], []
    for start, stop in products.chunks(net, dimension, max(args.sizes)):
        directions = _directions(net, key, np.arange(start, stop))
        first.append(products.push(net, args.inputs1, directions))
        if args.inputs2 is not None:
            second.append(products.push(net, args.inputs2, directions))
    phi1 = jnp.concatenate(first).astype(args.dtype)
    phi2 = jnp.concatenate(second).astype(args.dtype) if second else phi1
    kernel, error = _kernel(phi1, phi2, outputs)
    check_finite(kernel, args)
    features1 = _features(phi1, outputs)
    features2 = _features(phi2, outputs) if second else features1
    return SketchedKernel(kernel, error, features1, features2, dimension)


def _directions(net: Network, key: jax.Array, which: np.ndarray) -> list[jax.Array]:
    """Random signs for every parameter, one direction for each number."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(which, jnp.uint32))

    def signs(number: int, leaf: jax.Array) -> jax.Array:
        def one(k):
            return jax.random.rademacher(jax.random.fold_in(k, number), leaf.shape, leaf.dtype)

        return jax.vmap(one)(keys)

    return [signs(number, leaf) for number, leaf in enumerate(net.chosen)]


def _features(phi: jax.Array, outputs: str) -> jax.Array:
    dimension, n, count = phi.shape
    if outputs == "full":
        return phi.transpose(1, 2, 0) / dimension**0.5
    return phi.transpose(1, 2, 0).reshape(n, count * dimension) / max(dimension * count, 1) ** 0.5


def _kernel(phi1: jax.Array, phi2: jax.Array, outputs: str) -> tuple[jax.Array, jax.Array]:
    """Mean over directions of products of features ``(dimension, n, C)``, and standard error."""
    dimension = len(phi1)
    groups = min(dimension, _GROUPS)
    edges = [round(dimension * i / groups) for i in range(groups + 1)]
    mean = _product(phi1[: edges[1]], phi2[: edges[1]], outputs)
    squares = jnp.zeros_like(mean)
    for start, stop in pairwise(edges[1:]):
        part = _product(phi1[start:stop], phi2[start:stop], outputs)
        share = jnp.asarray((stop - start) / stop, mean.dtype)
        mean, squares = _updated(mean, squares, part, share, jnp.asarray(stop - start, mean.dtype))
    return mean, jnp.sqrt(squares / ((groups - 1) * dimension))


@compiled(static_argnames="outputs")
def _product(phi1: jax.Array, phi2: jax.Array, outputs: str) -> jax.Array:
    (size, n1, count), n2 = phi1.shape, phi2.shape[1]
    if outputs == "trace":
        left = phi1.transpose(1, 0, 2).reshape(n1, size * count)
        right = phi2.transpose(1, 0, 2).reshape(n2, size * count)
        return jnp.matmul(left, right.T, precision="highest") / max(size * count, 1)
    left, right = phi1.reshape(size, n1 * count), phi2.reshape(size, n2 * count)
    kernel = jnp.matmul(left.T, right, precision="highest") / size
    return kernel.reshape(n1, count, n2, count).transpose(0, 2, 1, 3)


@compiled
def _updated(mean, squares, part, share, size) -> tuple[jax.Array, jax.Array]:
    """Running mean and sum of squares of deviations of groups, weighted by their sizes."""
    step = part - mean
    mean = mean + share * step
    return mean, squares + size * step * (part - mean)
