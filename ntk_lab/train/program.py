"""The compiled parts of a training run: some updates of one or more seeds, and their outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ntk_lab.compiled import compiled
from ntk_lab.empirical.linearize import linearize
from ntk_lab.losses import Loss, mean_loss
from ntk_lab.train.batches import shuffle
from ntk_lab.turned import with_turned_products

Params = Any
Model = Callable[[Params, Any], jax.Array]


class Carry(NamedTuple):
    """What one update hands to the next.

    ``order`` is the epoch's shuffle, ``failed`` the step whose loss was first not finite, or -1.
    """

    params: Params
    state: Any
    order: jax.Array
    failed: jax.Array


@dataclass(frozen=True)
class Program:
    """Functions of stacked seeds, compiled once for each set of shapes.

    ``batch`` examples an update; None for all. ``looped``: many updates in one call.
    """

    f: Model
    optimizer: optax.GradientTransformation
    loss: Loss
    batch: int | None
    linearized: bool
    looped: bool

    def model(self, params0: Params) -> Model:
        """What is trained."""
        return linearize(self.f, params0) if self.linearized else self.f

    @cached_property
    def start(self) -> Callable[..., Carry]:
        """``start(params, x, key, step)``: the state before the first update."""
        return compiled(self._start)

    @cached_property
    def advance(self) -> Callable[..., Carry]:
        """``advance(carry, params0, x, y, key, low, high)``: updates ``low`` to ``high``.

        ``high`` counts only where ``looped``; otherwise it is one update.
        """
        return compiled(self._advance, donate_argnums=0)

    @cached_property
    def outputs(self) -> Callable[..., jax.Array]:
        """``outputs(params, params0, x)`` of each seed."""
        return compiled(_over_seeds(lambda p, p0, x: self.model(p0)(p, x), 2))

    @cached_property
    def measure(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
        """``measure(outputs, y, params, params0)``: loss and relative motion of each seed."""

        def one(outputs, params, params0, y):
            moved = optax.tree.norm(optax.tree.sub(params, params0))
            return mean_loss(self.loss, outputs, y), moved / optax.tree.norm(params0)

        return compiled(_over_seeds(one, 3))

    def _start(self, params, x, key, step) -> Carry:
        seeds, n = len(jax.tree.leaves(params)[0]), count(x)
        order = jnp.zeros(0, jnp.int32)
        if self.batch is not None:
            order = shuffle(key, step // (n // self.batch), n)
        state = _over_seeds(self.optimizer.init, 1)(params)
        return _strong(Carry(params, state, order, jnp.full(seeds, -1, jnp.int32)))

    def _advance(self, carry, params0, x, y, key, low, high) -> Carry:
        def step(index, carry: Carry) -> Carry:
            chosen, order = self._batch(carry.order, index, count(x), key)
            here = x if chosen is None else jax.tree.map(lambda a: a[chosen], x)
            there = y if chosen is None else y[chosen]

            def one(params, state, failed, params0):
                params, state, value = self._update(params, state, params0, here, there)
                lost = (failed < 0) & ~jnp.isfinite(value)
                return params, state, jnp.where(lost, index, failed)

            moved = _over_seeds(one, 4)(carry.params, carry.state, carry.failed, params0)
            return _strong(Carry(moved[0], moved[1], order, moved[2]))

        return jax.lax.fori_loop(low, high, step, carry) if self.looped else step(low, carry)

    def _batch(self, order, index, n, key):
        """Examples of an update, None for all, and the shuffle that they come from."""
        if self.batch is None:
            return None, order
        per_epoch = n // self.batch
        fresh = (index % per_epoch) == 0
        epoch = index // per_epoch
        order = jax.lax.cond(fresh, lambda: shuffle(key, epoch, n), lambda: order)
        begin = (index % per_epoch) * self.batch
        return jax.lax.dynamic_slice(order, (begin,), (self.batch,)), order

    def _update(self, params, state, params0, x, y):
        # Linearization takes derivatives in forward mode.
        model = self.model(params0) if self.linearized else with_turned_products(self.f)

        def loss(p):
            return mean_loss(self.loss, model(p, x), y)

        value, gradient = jax.value_and_grad(loss)(params)
        optimizer = optax.with_extra_args_support(self.optimizer)
        # Some of optax's optimizers mix dtypes, such as a float32 count with float64 moments.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, state = optimizer.update(
                gradient, state, params, value=value, grad=gradient, value_fn=loss
            )
            params = optax.apply_updates(params, updates)
        return params, state, value


def program(*settings: Any) -> Program:
    """The program of these settings, compiled once if they can be hashed."""
    try:
        return _remembered(*settings)
    except TypeError:
        return Program(*settings)


@lru_cache(maxsize=16)
def _remembered(*settings: Any) -> Program:
    return Program(*settings)


def count(x: Any) -> int:
    """Number of examples of a batch."""
    return len(jax.tree.leaves(x)[0])


def _over_seeds(function: Callable[..., Any], mapped: int) -> Callable[..., Any]:
    """``function`` of one seed for stacks of them, on the first ``mapped`` arguments.

    A stack of one is not vectorised: products of batches of matrices are slower than products.
    """

    def call(*args: Any) -> Any:
        stacks, shared = args[:mapped], args[mapped:]
        if len(jax.tree.leaves(stacks)[0]) > 1:
            return jax.vmap(function, (0,) * mapped + (None,) * len(shared))(*args)
        alone = (jax.tree.map(lambda a: a[0], stack) for stack in stacks)
        return jax.tree.map(lambda a: jnp.asarray(a)[None], function(*alone, *shared))

    return call


def _strong(tree: Any) -> Any:
    """The same without weak types, so that every update has the types of the one before."""
    return jax.tree.map(lambda a: jax.lax.convert_element_type(a, a.dtype), tree)


def has_convolutions(f: Model, params: Params, x: Any) -> bool:
    """Whether the model convolves, which CPUs do many times slower inside compiled loops."""
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), params)
    return _finds(jax.make_jaxpr(f)(shapes, x).jaxpr, "conv_general_dilated")


def _finds(jaxpr: Any, name: str) -> bool:
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            return True
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns") and _finds(inner, name):
                    return True
    return False
