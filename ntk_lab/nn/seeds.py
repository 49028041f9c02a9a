"""Kernels that layers estimate from random draws, with standard errors."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Kernel
from ntk_lab.nn.module import Module

# Apart by more than a network has layers, so that no two layers of two repeats share draws.
_STRIDE = 10_000


class KernelWithError(NamedTuple):
    """Mean of kernels over seeds, and the standard error of each entry."""

    kernel: Kernel
    stderr: Kernel


def kernel_over_seeds(net: Module, x1: Any, x2: Any = None, repeats: int = 8) -> KernelWithError:
    """Kernel of a network with sampled layers, averaged over independent draws.

    Parameters
    ----------
    net
        A network with layers that have a ``seed``, such as :class:`ntk_lab.nn.GlobalSelfAttention`
        with softmax and ``scaling="sqrt"``.
    x1, x2
        Inputs as for :meth:`Module.kernel`.
    repeats
        Number of independent kernels, at least 2; compiled once.

    Returns
    -------
    KernelWithError
        ``kernel`` and ``stderr``, each with ``nngp`` and ``ntk``. The error falls as
        ``1 / sqrt(repeats samples)``. Layers after a sampled one are not linear in its covariance,
        which leaves a bias of order ``1 / samples`` that averaging does not remove.
    """
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 2:
        raise InputError(f"kernel_over_seeds got repeats={repeats!r}; two or more are needed.")
    kernels = [_with_seeds(net, (i + 1) * _STRIDE).kernel(x1, x2) for i in range(repeats)]
    values = [jnp.stack(v) for v in zip(*kernels, strict=True)]
    mean = Kernel(*(v.mean(axis=0) for v in values))
    return KernelWithError(mean, Kernel(*(v.std(axis=0, ddof=1) / repeats**0.5 for v in values)))


def _with_seeds(net: Module, shift: int) -> Module:
    layers, tree = jax.tree.flatten(net, is_leaf=_has_seed)
    if not any(_has_seed(m) for m in layers):
        raise InputError(
            "kernel_over_seeds is for networks with layers that draw samples; this one has none "
            "(no layer has a seed), and net.kernel is exact."
        )
    # Arrays, not numbers: otherwise each seed would be compiled anew.
    new = [replace(m, seed=jnp.asarray(m.seed + shift)) if _has_seed(m) else m for m in layers]
    return jax.tree.unflatten(tree, new)


def _has_seed(value: Any) -> bool:
    return isinstance(value, Module) and hasattr(value, "seed")
