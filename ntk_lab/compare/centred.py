"""Networks that start at zero and are scaled: from rich to lazy training at one width."""

import jax

from ntk_lab.kernel import Kernel, Need, State, moments
from ntk_lab.nn.module import Module, Params, hyper, module, submodules


@module
class Centred(Module):
    """``alpha (f(p) - f(q)) / sqrt(2)`` with ``p = q`` at the start, both trained.

    The output starts at exactly zero, and the NTK at ``alpha^2`` times that of ``f``: the doubled
    networks of arXiv:1812.07956, whose training becomes that of their linearization as ``alpha``
    grows. The NNGP kernel is zero: there is no spread over initializations.

    Parameters
    ----------
    body
        The network ``f``.
    alpha
        Output scale. Learning rates are divided by its square, so that time is that of ``f``.
    """

    body: Module = submodules()
    alpha: float = hyper(default=1.0)

    @property
    def ends_independent(self) -> bool:
        return self.body.ends_independent

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.body.output_shape(shape)

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        params = self.body.init(key, shape, dtype)
        return {"plus": params, "minus": params}

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        plus, minus = (self.body.apply(params[name], x) for name in ("plus", "minus"))
        return self.alpha / 2**0.5 * (plus - minus)

    def need(self, after: Need) -> Need:
        return self.body.need(after)

    def propagate(self, state: State) -> State:
        after = moments(self.body.propagate(state))
        return after.mapped(lambda k: k.scale(0.0), self.alpha**2 * after.ntk)

    def kernel(self, x1, x2=None, **options) -> Kernel:
        # Of the body, so that one compiled program serves every alpha.
        body = self.body.kernel(x1, x2, **options)
        return Kernel(0.0 * body.nngp, self.alpha**2 * body.ntk)

    def learning_rate_scale(self) -> float:
        """That of the body over ``alpha^2``."""
        return self.body.learning_rate_scale() / self.alpha**2
