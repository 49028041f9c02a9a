"""What all activations share: an elementwise function and its dual."""

from dataclasses import replace

import jax

from ntk_lab.errors import InputError
from ntk_lab.kernel import Covariance, Gaussian, Need, State
from ntk_lab.nn.module import Module, Params


class Activation(Module):
    """An elementwise function ``phi`` with its dual.

    A subclass gives :meth:`function` and :meth:`dual`. The kernel rule is
    ``q' = E[phi(u) phi(v)]``, ``t' = t E[phi'(u) phi'(v)]`` over centred Gaussians ``(u, v)``
    with covariance ``q`` (arXiv:1806.07572).
    """

    def function(self, x: jax.Array) -> jax.Array:
        """``phi(x)``, elementwise."""
        raise TypeError(f"{type(self).__name__} does not define function(x).")

    def dual(self, cov: Covariance) -> tuple[Covariance, jax.Array]:
        """``E[phi(u) phi(v)]`` with its variances, and ``E[phi'(u) phi'(v)]``."""
        raise TypeError(f"{type(self).__name__} does not define dual(cov).")

    def presence(self, mask: jax.Array) -> jax.Array:
        return mask

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        return ()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return self.function(x)

    def need(self, after: Need) -> Need:
        return after.for_activation()

    def propagate(self, state: State) -> State:
        if not isinstance(state, Gaussian):
            raise InputError(
                f"{type(self).__name__} stands where its input is not a Gaussian process in the "
                "infinite-width limit: on the data, or after another activation. Its kernel is "
                "known only after a layer with weights: put ntk.nn.Dense(...) before it."
            )
        cov, derivative = self.dual(state.cov)
        layout = state.layout.mapped(lambda k: self.dual(k)[0])
        ntk = state.ntk * derivative
        return replace(state.features(), cov=cov, ntk=ntk, layout=layout)
