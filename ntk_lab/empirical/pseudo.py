"""The pseudo-NTK: a kernel of one output in place of that of all of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntk_lab.empirical.arguments import Select, arguments
from ntk_lab.empirical.ntk import Model, ntk
from ntk_lab.empirical.operator_base import whole
from ntk_lab.errors import InputError
from ntk_lab.solve.estimate import Estimate

# Rows and columns of the exact kernel in one block of the check.
_BLOCK = 4


class PseudoKernel(NamedTuple):
    """The pseudo-NTK and its distance from the kernel that it approximates.

    Attributes
    ----------
    kernel
        Shape ``(n1, n2)``.
    relative_error
        ``|kernel - exact| / |exact|`` in Frobenius norm, for the exact kernel averaged over
        outputs, estimated from some of its blocks; None if no check was asked for.
    """

    kernel: jax.Array
    relative_error: Estimate | None


def pseudo_ntk(
    f: Model,
    params: Any,
    x1: Any,
    x2: Any = None,
    *,
    key: jax.Array | None = None,
    blocks: int = 16,
    select: Select | None = None,
    memory: float | None = None,
) -> PseudoKernel:
    """Kernel of the sum of the outputs over ``sqrt(C)``, and how far it is from the exact one.

    ``K[i, j] = 1/C sum_ab <df_a(x1_i), df_b(x2_j)>`` in place of
    ``Theta[i, j] = 1/C sum_a <df_a(x1_i), df_a(x2_j)>``: the terms with ``a != b`` vanish as the
    width grows, if the outputs share no readout weights.

    Parameters
    ----------
    f, params, x1, x2, select, memory
        As for :func:`ntk`.
    key
        Decides on which pairs of examples the error is measured.
    blocks
        Number of blocks of 4 by 4 pairs, drawn at random, for which the exact kernel is computed,
        at least 2; 0 for no check.

    Returns
    -------
    PseudoKernel
        In the dtype of the parameters.

    Raises
    ------
    InputError, NumericalError
        As for :func:`ntk`; a check without examples or without a key.

    Notes
    -----
    One backward pass an example instead of ``C``, and a kernel ``C`` times cheaper than the trace.
    The relative error falls as ``1 / sqrt(width)`` (arXiv:2206.12543). Its estimate is a ratio of
    sums over the blocks, whose standard error is found by leaving one out at a time (jackknife);
    ratios of few blocks are skewed, so take 50 or more where the error itself matters.
    Linear classifiers on frozen features share nothing between outputs, so that the two are equal.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda w, x: x @ w
    >>> k = ntk.empirical.pseudo_ntk(f, jnp.ones((3, 2)), jnp.eye(3), key=jax.random.key(0))
    >>> print(k.kernel[0].round(3), k.relative_error.value < 1e-6)
    [1. 0. 0.] True
    """
    args = arguments(f, params, x1, x2, select)
    (n1, n2), outputs = args.sizes, args.outputs
    weights = jnp.full(outputs, outputs**-0.5 if outputs else 0.0, args.output_dtype)
    kernel = ntk(f, params, x1, x2, outputs=weights, select=select, memory=memory)
    if not blocks:
        return PseudoKernel(kernel, None)
    whole("blocks", blocks, 2)
    if key is None:
        raise InputError("measuring the error needs a key (or blocks=0 for no check).")
    if n1 == 0 or n2 == 0:
        raise InputError("without examples there is no error to measure; give blocks=0.")
    second = x1 if x2 is None else x2
    keys = jax.random.split(key, 2)
    rows = jax.random.randint(keys[0], (blocks, _BLOCK), 0, n1)
    columns = jax.random.randint(keys[1], (blocks, _BLOCK), 0, n2)
    sums = []
    for i, j in zip(rows, columns, strict=True):
        left, right = _rows(x1, i), _rows(second, j)
        exact = ntk(f, params, left, right, outputs="trace", select=select, memory=memory)
        sums.append(jnp.stack([((kernel[i][:, j] - exact) ** 2).sum(), (exact**2).sum()]))
    return PseudoKernel(kernel, _jackknife(jnp.stack(sums)))


def _rows(x: Any, which: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[which], x)


def _jackknife(sums: jax.Array) -> Estimate:
    """Root of the ratio of two sums over blocks, ``(blocks, 2)``."""
    n = len(sums)

    def ratio(total):
        return jnp.sqrt(total[..., 0] / jnp.where(total[..., 1] > 0, total[..., 1], 1))

    without = ratio(sums.sum(axis=0)[None] - sums)
    error = jnp.sqrt((n - 1) * without.var())
    return Estimate(ratio(sums.sum(axis=0)), error, n)
