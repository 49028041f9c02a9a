"""A part of a network that is not trained."""

from dataclasses import replace

import jax

from ntk_lab.kernel import Inputs, Need, State, moments
from ntk_lab.nn.module import Module, Params, module, submodules


@module
class Frozen(Module):
    """``body`` without gradients: its parameters stay at their initial values.

    (Unless the optimizer moves parameters without gradients, as weight decay does: mask it.)
    The function is unchanged; gradients with respect to the body's parameters are zero, so its
    layers contribute nothing to the NTK and only pass on what comes before them. With everything
    but the readout frozen, the NTK is the covariance of the last hidden layer's features: random
    feature regression, which is linear in its trained parameters at every width.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> hidden = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Relu())
    >>> net = ntk.nn.Sequential(ntk.nn.Frozen(hidden), ntk.nn.Dense(1))
    """

    body: Module = submodules()

    @property
    def ends_independent(self) -> bool:
        return self.body.ends_independent

    @property
    def keeps_independence(self) -> bool:
        return self.body.keeps_independence

    @property
    def independent(self) -> bool:
        return self.body.independent

    @property
    def takes_graphs(self) -> bool:
        return self.body.takes_graphs

    @property
    def takes_masks(self) -> bool:
        return True

    def presence(self, mask: jax.Array) -> jax.Array:
        return self.body.presence(mask).astype(bool)

    @property
    def vocabulary_size(self) -> int | None:
        return self.body.vocabulary_size

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.body.output_shape(shape)

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        return self.body.init(key, shape, dtype)

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return self.body.apply(jax.lax.stop_gradient(params), x)

    def need(self, after: Need) -> Need:
        return self.body.need(after)

    def propagate(self, state: State) -> State:
        # The NTK after the body is affine in the NTK before it; the constant is the body's own.
        after = moments(self.body.propagate(state))
        if isinstance(state, Inputs):
            return replace(after, ntk=0 * after.ntk)
        silent = moments(self.body.propagate(replace(state, ntk=0 * state.ntk)))
        return replace(after, ntk=after.ntk - silent.ntk)
