"""Moments of combinations of independent processes: sums, products, concatenations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel.covariance import Covariance
from ntk_lab.kernel.layout import Diagonal, Full, Vector
from ntk_lab.kernel.state import Features, Gaussian, Mixture

_Rule = Callable[[Sequence[Covariance]], Covariance]


def sum_of_independent(*states: Features) -> Features:
    """State of the sum: covariances and NTKs add up."""
    _check_same_positions(states)
    ntk = reduce(jnp.add, [state.ntk for state in states])
    return _combined(states, lambda ks: reduce(Covariance.add, ks), ntk)


def product_of_independent(*states: Features) -> Features:
    """State of the elementwise product: ``q' = prod q_i``, ``t' = sum_i t_i prod_(j != i) q_j``."""
    _check_same_positions(states)
    if sum(isinstance(state, Mixture) for state in states) > 1:
        raise InputError(
            "two branches of a product end in a concatenation of channels of different kinds; the "
            "mean over channels of their product is not the product of the means. End one of them "
            "in a layer with weights, such as ntk.nn.Dense(...)."
        )
    covs = [state.cov.cov for state in states]
    ntk = jnp.zeros_like(states[0].ntk)
    for i, state in enumerate(states):
        ntk = ntk + math.prod((c for j, c in enumerate(covs) if j != i), start=state.ntk)
    after = _combined(states, lambda ks: reduce(_product, ks), ntk)
    # A product of Gaussian variables is not Gaussian.
    return after if isinstance(after, Mixture) else after.features()


def _product(a: Covariance, b: Covariance) -> Covariance:
    # norm_a norm_b - |cov_a cov_b|; nothing cancels.
    gap = a.gap * b.norm + jax.lax.stop_gradient(jnp.abs(a.cov)) * b.gap
    return Covariance(a.var1 * b.var1, a.var2 * b.var2, a.cov * b.cov, gap)


def concatenate_channels(*states: Features) -> Features:
    """State of all channels together: means of the branches weighted by their channels."""
    _check_same_positions(states)
    total = sum(state.channels for state in states)
    shares = [state.channels / total for state in states]

    def rule(ks: Sequence[Covariance]) -> Covariance:
        # A channel drawn at random: the sum of independent processes has these moments too.
        return reduce(Covariance.add, [k.scale(w) for k, w in zip(ks, shares, strict=True)])

    ntk = reduce(jnp.add, [w * state.ntk for state, w in zip(states, shares, strict=True)])
    after = _combined(states, rule, ntk)
    return Mixture(after.cov, after.ntk, total, *after.places())


def concatenate_positions(axis: int, *states: Features) -> Features:
    """State of all positions along one spatial axis; those of different branches independent."""
    layout, channels = states[0].layout, {state.channels for state in states}
    others = {
        (type(s.layout), *(n for i, n in enumerate(s.layout.shape) if i != axis)) for s in states
    }
    if len(others) > 1 or len(channels) > 1 or isinstance(layout, Vector):
        raise InputError(
            f"branches end with positions {[s.layout.shape for s in states]} and channels "
            f"{[s.channels for s in states]}; along spatial axis {axis} they can be concatenated "
            "only if all other sizes agree."
        )
    sizes = [state.layout.shape[axis] for state in states]
    shape = (*layout.shape[:axis], sum(sizes), *layout.shape[axis + 1 :])
    other = axis + len(shape)

    def join(values: Sequence[jax.Array]) -> jax.Array:
        return jnp.concatenate(values, axis=axis)

    def block(values: jax.Array, i: int) -> jax.Array:
        edges = sum(sizes[:i]), sum(sizes[i + 1 :])
        return jnp.pad(
            values, [edges if a in (axis, other) else (0, 0) for a in range(values.ndim)]
        )

    def join_blocks(values: Sequence[jax.Array]) -> jax.Array:
        return reduce(jnp.add, [block(v, i) for i, v in enumerate(values)])

    def rule(ks: Sequence[Covariance]) -> Covariance:
        var1, cov, gap = [k.var1 for k in ks], [k.cov for k in ks], [k.gap for k in ks]
        if isinstance(layout, Diagonal):
            return Covariance(join(var1), join([k.var2 for k in ks]), join(cov), join(gap))
        var2 = jnp.concatenate([k.var2 for k in ks], axis=other)
        joined = Covariance(join(var1), var2, join_blocks(cov), join_blocks(gap))
        inside = join_blocks([jnp.ones_like(c) for c in cov]) > 0
        return replace(joined, gap=jnp.where(inside, joined.gap, joined.norm))

    together = join if isinstance(layout, Diagonal) else join_blocks
    after = _combined(states, rule, together([state.ntk for state in states]))
    return replace(after, layout=replace(after.layout, shape=shape))


def _combined(states: Sequence[Features], rule: _Rule, ntk: jax.Array) -> Features:
    """State with a rule applied to the covariances, of the kind that all states share."""
    first, layout = states[0], states[0].layout
    if isinstance(layout, Full):
        own = [k for s in states if (k := getattr(s.layout, "own", None)) is not None]
        layout = replace(layout, own=rule(own) if len(own) == len(states) else None)
    kind = Features
    if any(isinstance(state, Mixture) for state in states):
        kind = Mixture
    elif all(isinstance(state, Gaussian) for state in states):
        kind = Gaussian
    cov = rule([state.cov for state in states])
    return kind(cov, ntk, first.channels, *replace(first, layout=layout).places())


def _check_same_positions(states: Sequence[Features]) -> None:
    a = states[0].layout
    for b in (state.layout for state in states[1:]):
        if type(a) is not type(b) or a.shape != b.shape:
            raise InputError(
                f"branches end with positions {a.shape} ({type(a).__name__}) and {b.shape} "
                f"({type(b).__name__}), which cannot be combined: make their shapes agree."
            )
