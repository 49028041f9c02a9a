"""Moments of a process that is carried on over the positions of a sequence."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

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
