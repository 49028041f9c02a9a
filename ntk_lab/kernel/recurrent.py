"""Moments of a process that is carried on over the positions of a sequence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel.covariance import Covariance
from ntk_lab.kernel.layout import Full
from ntk_lab.kernel.state import Features


@dataclass(frozen=True)
class Step:
    """One step: the dual of its activation, and factors for the carried state and the input.

    ``signals`` multiply covariances and NTKs passing through, ``tangents`` the covariances in the
    weights' own share of the NTK; ``constant`` is the variance of the bias, None without one.
    """

    dual: Callable[[Covariance], tuple[Covariance, jax.Array]]
    signals: tuple[Any, Any]
    tangents: tuple[Any, Any]
    constant: Any
    constant_tangent: Any

    def __call__(
        self, h: Covariance, h_ntk: jax.Array, x: Covariance, x_ntk: jax.Array
    ) -> tuple[Covariance, jax.Array]:
        """Covariance and NTK of the state after the step."""
        signal_h, signal_x = self.signals
        tangent_h, tangent_x = self.tangents
        before = h.scale(signal_h).add(x.scale(signal_x))
        if self.constant is not None:
            before = before.add_constant(self.constant)
        ntk = tangent_h * h.cov + tangent_x * x.cov + self.constant_tangent
        ntk = ntk + signal_h * h_ntk + signal_x * x_ntk
        cov, derivative = self.dual(before)
        return cov, derivative * ntk


def recurrence(state: Features, step: Step) -> Features:
    """Moments of all states, from those of the inputs at all times; the first starts from zero."""
    layout = state.layout
    if not isinstance(layout, Full):
        cov, ntk = _at_equal_times(state.cov, state.ntk, step)
        return replace(state, cov=cov, ntk=ntk)
    if layout.own is not None:
        own = _at_all_times(layout.own, jnp.zeros_like(layout.own.cov), step)[0]
        layout = replace(layout, own=own)
    cov, ntk = _at_all_times(state.cov, state.ntk, step)
    return replace(state, cov=cov, ntk=ntk, layout=layout)


def recurrence_of_present(
    state: Features, masks: tuple[jax.Array, jax.Array], step: Step, last: bool
) -> Features:
    """Moments of states that do not change at absent times; ``masks`` are ``(n, time)``.

    Of all states, or of the last one alone, at one time. Present inputs are moved to the front,
    where they come one after the other, and their states back: those at absent times are not
    meaningful.
    """
    orders = [jnp.argsort(~mask, axis=1, stable=True) for mask in masks]
    after = recurrence(_at_times(state, orders), step)
    if last:
        ends = [jnp.maximum(jnp.sum(mask, axis=1, keepdims=True) - 1, 0) for mask in masks]
        return _at_times(after, ends)
    return _at_times(after, [jnp.argsort(order, axis=1) for order in orders])


def _at_times(state: Features, times: Sequence[jax.Array]) -> Features:
    """State at times of each example's own, ``(n1, k)`` and ``(n2, k)``."""
    layout = state.layout
    if not isinstance(layout, Full):
        raise InputError(
            "a recurrent layer needs the covariance between all times of sequences with masks: "
            "layers must pass on what is needed, see Module.need."
        )
    pairs = layout.pairs
    examples = times[0] if pairs.symmetric else jnp.concatenate(times)
    of_pairs = _taken_at(examples[pairs.first], examples[pairs.second])
    own = None if layout.own is None else jax.tree.map(_taken_at(examples, examples), layout.own)
    layout = replace(layout, shape=(examples.shape[1],), own=own)
    cov, ntk = jax.tree.map(of_pairs, (state.cov, state.ntk))
    return replace(state, cov=cov, ntk=ntk, layout=layout)


def _taken_at(first: jax.Array, second: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Selection from ``(time, time, k)``, or one time for variances, by times ``(k, outputs)``."""

    def take(values: jax.Array) -> jax.Array:
        for axis, index in enumerate((first, second)):
            if values.shape[axis] > 1:
                index = jnp.expand_dims(index.T, 1 - axis)
                values = jnp.take_along_axis(values, index, axis=axis)
        return values

    return take


def _at_equal_times(x: Covariance, ntk: jax.Array, step: Step) -> tuple[Covariance, jax.Array]:
    """Over ``(time, n1, n2)``: equal times come from equal times."""

    def advance(carry, inputs):
        after = step(*carry, *inputs)
        return after, after

    start = jax.tree.map(lambda v: jnp.zeros_like(v[0]), (x, ntk))
    return jax.lax.scan(advance, start, (x, ntk))[1]


def _at_all_times(x: Covariance, ntk: jax.Array, step: Step) -> tuple[Covariance, jax.Array]:
    """Over ``(time, time, pairs)``: a row of times comes from the row before it, shifted by one."""
    var1, var2 = (_variances(v, step) for v in (x.var1[:, 0], x.var2[0]))

    def shifted(row: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.zeros_like(row[:1]), row[:-1]])

    before2 = shifted(var2)

    def advance(carry, inputs):
        cov, gap, ntk = (shifted(row) for row in carry)
        before1, x_var1, x_cov, x_gap, x_ntk = inputs
        h = Covariance(before1[None], before2, cov, gap)
        after, ntk = step(h, ntk, Covariance(x_var1, x.var2[0], x_cov, x_gap), x_ntk)
        row = after.cov, after.gap, ntk
        return row, row

    start = (jnp.zeros_like(ntk[0]),) * 3
    rows = shifted(var1), x.var1, x.cov, x.gap, ntk
    cov, gap, ntk = jax.lax.scan(advance, start, rows)[1]
    return Covariance(var1[:, None], var2[None], cov, gap), ntk


def _variances(x: jax.Array, step: Step) -> jax.Array:
    """Variances of the states, ``(time, k)``, from those of the inputs."""

    def advance(h: jax.Array, x: jax.Array):
        zero = jnp.zeros_like(x)
        after = step(Covariance(h, h, h, zero), zero, Covariance(x, x, x, zero), zero)[0]
        return after.var1, after.var1

    return jax.lax.scan(advance, jnp.zeros_like(x[0]), x)[1]
