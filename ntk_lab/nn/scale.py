"""Multiplication by a constant."""

import jax

from ntk_lab.kernel import State, moments
from ntk_lab.nn.module import Module, Params, hyper, module


@module
class Scale(Module):
    """``y = alpha x``; ``q' = alpha^2 q`` and ``t' = alpha^2 t``.

    Behind the readout it is the output scale of arXiv:1812.07956: as ``alpha`` grows, with the
    learning rate divided by ``alpha^2`` and the output at initialization made small, training
    becomes that of the linearized network ("lazy") at any width.

    Parameters
    ----------
    alpha
        The factor, of any sign. Kernels are differentiable in it.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(1), ntk.nn.Scale(3.0))
    >>> float(net.kernel(jnp.ones((1, 2))).ntk[0, 0])
    9.0
    """

    alpha: float = hyper()

    @property
    def keeps_independence(self) -> bool:
        return True

    def presence(self, mask: jax.Array) -> jax.Array:
        return mask

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        return ()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return self.alpha * x

    def propagate(self, state: State) -> State:
        state = moments(state)
        square = self.alpha**2
        return state.mapped(lambda k: k.scale(square), square * state.ntk)
