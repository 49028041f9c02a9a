"""One block of a network as a map of variances and correlations, by the library's own kernel rules.

A block is any module whose rule maps a Gaussian process to one of its kind, such as ``Sequential(
Tanh(), Dense(1, w_std, b_std))``. Scales may be arrays: then each entry is a block of its own.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError
from ntk_lab.kernel import Covariance, Features, Gaussian, moments
from ntk_lab.nn.module import Module


class Step(NamedTuple):
    """A block applied to two inputs of one variance.

    ``variance`` and ``distance``, one minus the correlation, are those after the block. ``chi`` is
    its factor on the NTK, ``E[phi'(u) phi'(v)]`` times the scales, at that pair: by Price's theorem
    the derivative of the covariance after the block in the one before it. ``variance_slope`` is
    the derivative of the variance after the block in the one before it.
    """

    variance: np.ndarray
    distance: np.ndarray
    chi: np.ndarray
    variance_slope: np.ndarray


class Map:
    """A block that may have arrays as scales, as a function of variances and distances."""

    def __init__(self, block: Module):
        leaves, self._treedef = jax.tree.flatten(block)
        self._gaussian = _iterates(block)
        self._dtype = jnp.result_type(float)
        arrays = [np.asarray(leaf, self._dtype) for leaf in leaves]
        self.shape = np.broadcast_shapes(*(a.shape for a in arrays))
        self._leaves = tuple(np.broadcast_to(a, self.shape).ravel() for a in arrays)

    @property
    def eps(self) -> float:
        """Unit of rounding."""
        return float(jnp.finfo(self._dtype).eps)

    def __call__(self, variance: Any, distance: Any = 0.0) -> Step:
        """The block at each variance and distance, arrays of ``shape``."""
        return Step(*self._run(_step, variance, distance))

    def variance(self, variance: Any) -> np.ndarray:
        """The variance alone."""
        return self._run(_variance, variance, 0.0)[0]

    def distance(self, variance: Any, distance: Any) -> np.ndarray:
        """The distance alone."""
        return self._run(_distance, variance, distance)[0]

    def _run(self, program: Any, variance: Any, distance: Any) -> list[np.ndarray]:
        given = (
            np.broadcast_to(np.asarray(v, self._dtype), self.shape) for v in (variance, distance)
        )
        size = max(1, int(np.prod(self.shape)))
        flat = [np.broadcast_to(v.ravel(), (size,)) for v in (*given, *self._leaves)]
        found = program(self._treedef, self._gaussian, *flat[:2], tuple(flat[2:]))
        return [np.asarray(v, float).reshape(self.shape) for v in found]


def _program(outputs: Any) -> Any:
    """The function of one block, variance and distance, over all of them and compiled."""

    @compiled(static_argnums=(0, 1))
    def run(treedef: Any, gaussian: bool, variance, distance, leaves: tuple):
        def one(variance, distance, leaves):
            block = jax.tree.unflatten(treedef, leaves)

            def after(variance: jax.Array, distance: jax.Array, ntk: float) -> Features:
                return moments(block.propagate(_pair(variance, distance, ntk, gaussian)))

            return outputs(after, variance, distance)

        return jax.vmap(one)(variance, distance, leaves)

    return run


@_program
def _step(after: Any, variance, distance):
    def own(v):
        return after(v, jnp.zeros_like(v), 0.0).cov.var1[0, 0]

    new_variance, slope = jax.jvp(own, (variance,), (jnp.ones_like(variance),))
    # The rule is linear in the NTK that came before.
    without, chi = jax.jvp(
        lambda t: after(variance, distance, t).ntk[0, 0],
        (jnp.zeros_like(variance),),
        (jnp.ones_like(variance),),
    )
    del without
    return new_variance, distance_of(after(variance, distance, 0.0).cov)[0, 0], chi, slope


@_program
def _variance(after: Any, variance, distance):
    return (after(variance, distance, 0.0).cov.var1[0, 0],)


@_program
def _distance(after: Any, variance, distance):
    return (distance_of(after(variance, distance, 0.0).cov)[0, 0],)


def distance_of(cov: Covariance) -> jax.Array:
    """One minus the correlation, without cancellation; zero where a variance is."""
    norm = cov.norm
    below = jnp.where(cov.cov >= 0, cov.gap, norm - cov.cov)
    return jnp.where(norm > 0, below / jnp.where(norm > 0, norm, 1), 0)


def _pair(variance: jax.Array, distance: jax.Array, ntk: Any, gaussian: bool) -> Features:
    """State of two inputs of one variance, as a one by one matrix."""
    variance, distance = variance[None, None], distance[None, None]
    cov = variance * (1 - distance)
    gap = jnp.where(distance <= 1, variance * distance, variance * (2 - distance))
    covariance = Covariance(variance, variance, cov, jax.lax.stop_gradient(gap))
    kind = Gaussian if gaussian else Features
    return kind(covariance, jnp.full_like(variance, ntk), 1, same=distance == 0)


def _iterates(block: Module) -> bool:
    """Whether copies of the block are given Gaussian processes; checks that they can follow."""

    def kind(gaussian: bool) -> bool:
        found = []

        def run(v):
            one = jax.tree.map(lambda leaf: jnp.ones((), v.dtype), block)
            found.append(moments(one.propagate(_pair(v, v, 0.0, gaussian))))
            return ()

        jax.eval_shape(run, jax.ShapeDtypeStruct((), jnp.result_type(float)))
        state = found[0]
        if state.layout.shape:
            raise InputError(
                f"the block has positions {state.layout.shape}; its map of variances is that of "
                "many numbers. Use ntk.theory.signal_propagation(net, x), layer by layer."
            )
        return isinstance(state, Gaussian)

    # A block that does not end in a Gaussian process must not need one: its rule says so.
    return kind(True) or kind(False)
