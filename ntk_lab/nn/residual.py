"""Skip connection around a block."""

import jax

from ntk_lab.errors import InputError
from ntk_lab.kernel import Need, State, moments
from ntk_lab.kernel.combine import sum_of_independent
from ntk_lab.kernel.native_steps import Fork, Join, Step
from ntk_lab.nn.graph import feed, nodes
from ntk_lab.nn.module import Module, Params, module, submodules


@module
class Residual(Module):
    """``y = x + body(x)``.

    The body must end in a layer with weights of its own (``Dense``): then both terms are
    uncorrelated in the infinite-width limit and covariances and NTKs add up. The finite body
    must keep the shape.

    Raises
    ------
    InputError
        A body that ends in anything else, or changes the shape.
    """

    body: Module = submodules()

    def __post_init__(self):
        if not self.body.ends_independent:
            raise InputError(
                "the body of Residual must end in a layer with weights, such as ntk.nn.Dense: "
                "otherwise its output is correlated with its input and the kernels do not add "
                f"up. Got {self.body!r}."
            )

    @property
    def ends_independent(self) -> bool:
        # y contains x itself.
        return False

    @property
    def takes_graphs(self) -> bool:
        return self.body.takes_graphs

    @property
    def takes_masks(self) -> bool:
        return True

    def presence(self, mask: jax.Array) -> jax.Array:
        return mask | self.body.presence(mask).astype(bool)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        after = self.body.output_shape(shape)
        if after != shape:
            raise InputError(
                f"the body of Residual turns examples of shape {shape} into {after}; the two "
                "cannot be added. Give its last layer the width of the input."
            )
        return shape

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        return self.body.init(key, shape, dtype)

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        return nodes(x) + feed(self.body, params, x)

    def vector_steps(self, shape: tuple[int, ...]) -> list[Step] | None:
        body = self.body.vector_steps(shape) if len(shape) == 1 else None
        return None if body is None else [Fork(), *body, Join()]

    def need(self, after: Need) -> Need:
        return after | self.body.need(after)

    def propagate(self, state: State) -> State:
        skip, branch = moments(state), moments(self.body.propagate(state))
        return sum_of_independent(skip, branch)
