"""A function of one example as a program that returns what each parameter contributes."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntk_lab.empirical.structured.factors import (
    Channels,
    Factor,
    Outer,
    Rows,
    Tokens,
    formed,
    join,
)
from ntk_lab.empirical.structured.rules import zeros_like
from ntk_lab.empirical.structured.uses import Use
from ntk_lab.equations import bind, is_literal
from ntk_lab.turned import bind_turned


@dataclass(frozen=True)
class Part:
    """One parameter, with the biases that share its cotangents, and how to treat it.

    ``kind`` is ``"outer"`` or ``"tokens"`` (all uses alike: positions are joined), ``"direct"``
    (gradients of all uses are added up) or ``"opaque"`` (a probe on the parameter itself).
    ``form`` is ``"rows"`` where gradients are formed, ``"gram"`` and ``"mixed"`` where they are
    not, and ``"readout"`` where it is used that channels reach the variable ``readout`` one by one.
    """

    leaf: int
    kind: str
    uses: tuple[Use, ...] = ()
    columns: tuple[tuple[int, float], ...] = ()
    form: str = "rows"
    early: bool = False
    reason: str = ""
    readout: Any = None

    @property
    def leaves(self) -> tuple[int, ...]:
        """The parameter and its merged biases."""
        return (self.leaf, *(leaf for leaf, _ in self.columns))

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """``(B, T, I, O)`` over all uses."""
        b, _, i, o = self.uses[0].rule.sizes
        return b, sum(u.rule.sizes[1] for u in self.uses), i + len(self.columns), o


class Passed(NamedTuple):
    """What the passes through the network found, for one example.

    Values of operands, cotangents ``(C, *shape)`` at places, gradients of parameters without a
    rule; and from each readout, cotangents at places of the sum of its entries.
    """

    operands: dict[Any, Any]
    cotangents: dict[Any, Any]
    gradients: dict[int, Any]
    channels: dict[Any, dict[Any, Any]]


def features(
    closed: Any,
    parts: Sequence[Part],
    leaf_count: int,
    values: Sequence[Any],
    inputs: Sequence[Any],
    basis: jax.Array,
) -> list[Factor]:
    """What each part contributes, for a batch of examples and ``k`` cotangents ``(k, C)``.

    ``values`` are the constants and parameters, ``inputs`` the leaves of the batch. One forward
    pass and one backward pass an example and cotangent, for all parts at once.
    """
    jaxpr = closed.jaxpr
    opaque = [p.leaf for p in parts if p.kind == "opaque"]
    readouts = list(dict.fromkeys(p.readout for p in parts if p.form == "readout"))
    places = list(dict.fromkeys([*(u.place for p in parts for u in p.uses), *readouts]))
    operands = list(
        dict.fromkeys(
            u.equation.invars[u.rule.operand]
            for p in parts
            for u in p.uses
            if u.rule.operand is not None and not is_literal(u.equation.invars[u.rule.operand])
        )
    )
    offset = len(values) - leaf_count

    def one(example):
        def run(probes, free):
            env = dict(zip(jaxpr.invars, [*values, *example], strict=True))
            env.update(zip(jaxpr.constvars, closed.consts, strict=True))
            for leaf, value in zip(opaque, free, strict=True):
                env[jaxpr.invars[offset + leaf]] = value
            _evaluate(jaxpr, env, dict(zip(places, probes, strict=True)))
            results = [_read(env, jaxpr.outvars[0]), *(env[v] for v in readouts)]
            return results, [env[v] for v in operands]

        probes = [zeros_like(v.aval) for v in places]
        free = [values[offset + leaf] for leaf in opaque]
        results, pullback, held = jax.vjp(run, probes, free, has_aux=True)
        zeros = [jnp.zeros_like(r) for r in results]
        cotangents, direct = jax.vmap(lambda row: pullback([row, *zeros[1:]]))(basis)
        passed = Passed(
            operands=dict(zip(operands, held, strict=True)),
            cotangents=dict(zip(places, cotangents, strict=True)),
            gradients=dict(zip(opaque, direct, strict=True)),
            channels={},
        )
        for k, var in enumerate(readouts, 1):
            ones, _ = pullback([*zeros[:k], jnp.ones_like(zeros[k]), *zeros[k + 1 :]])
            passed.channels[var] = dict(zip(places, ones, strict=True))
        return [_part(p, passed, jaxpr.invars[offset + p.leaf]) for p in parts]

    return jax.vmap(one)(list(inputs))


def outputs(closed: Any, values: Sequence[Any]) -> Any:
    """Outputs for constants, parameters and one example."""
    env = dict(zip(closed.jaxpr.invars, values, strict=True))
    env.update(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    _evaluate(closed.jaxpr, env, {})
    return _read(env, closed.jaxpr.outvars[0])


def _evaluate(jaxpr: Any, env: dict[Any, Any], probes: dict[Any, Any]) -> None:
    behind: set[Any] = set()  # what depends on a probe, and has a pullback
    for equation in jaxpr.eqns:
        operands = [_read(env, a) for a in equation.invars]
        differentiated = not behind.isdisjoint(a for a in equation.invars if not is_literal(a))
        results = (bind_turned if differentiated else bind)(equation, operands)
        for var, value in zip(equation.outvars, results, strict=True):
            env[var] = _with_probe(value, probes[var]) if var in probes else value
            if differentiated or var in probes:
                behind.add(var)


@jax.custom_vjp
def _with_probe(value: jax.Array, probe: jax.Array) -> jax.Array:
    """The sum, whose cotangents are computed once.

    They are read by what the part contributes and by the pass further back. XLA on CPU would fuse
    what computes them into each of these, and compute the derivatives of activations and
    normalizations several times.
    """
    return value + probe


def _known_cotangents(_: None, cotangents: jax.Array) -> tuple[jax.Array, jax.Array]:
    kept = jax.lax.optimization_barrier(cotangents)
    return kept, kept


_with_probe.defvjp(lambda value, probe: (value + probe, None), _known_cotangents)


def _read(env: dict[Any, Any], atom: Any) -> Any:
    return atom.val if is_literal(atom) else env[atom]


def _part(part: Part, passed: Passed, leaf: Any) -> Factor:
    """One part, for one example."""
    if part.kind == "opaque":
        gradient = passed.gradients[part.leaf]
        return Rows(gradient.reshape(len(gradient), -1))
    if part.kind == "direct":
        gradients = [
            jax.vmap(lambda d, u=u: _leaf_gradient(u, passed.operands, d, leaf))(
                passed.cotangents[u.place]
            )
            for u in part.uses
        ]
        total = functools.reduce(jnp.add, gradients)
        return Rows(total.reshape(len(total), -1))
    if part.form == "readout":
        factor = _by_channel(part, part.uses[0], passed)
    else:
        factors = [_outer(part, u, passed.operands, passed.cotangents[u.place]) for u in part.uses]
        factor = factors[0] if len(factors) == 1 else _one(join([_many(f) for f in factors]))
    return _one(formed(_many(factor))) if part.early else factor


def _many(factor: Factor) -> Factor:
    """With an axis of examples, of length one."""
    return jax.tree.map(lambda v: v[None], factor)


def _one(factor: Factor) -> Factor:
    return jax.tree.map(lambda v: v[0], factor)


def _operand(use: Use, known: Any) -> Any:
    atom = use.equation.invars[use.rule.operand]
    return atom.val if is_literal(atom) else known[atom]


def _by_channel(part: Part, use: Use, passed: Passed) -> Factor:
    ends = passed.channels[part.readout][use.place]
    factor = _outer(part, use, passed.operands, ends[None])
    b = passed.cotangents[part.readout]
    return Channels(factor.a[0], factor.d[0, 0], b.reshape(len(b), -1))


def _outer(part: Part, use: Use, known: Any, cotangents: Any) -> Any:
    a = use.rule.inputs(_operand(use, known))
    d = jax.vmap(use.rule.cotangents)(cotangents)
    scale = use.factor * use.view.scale
    if part.kind == "tokens":
        size = use.rule.sizes[2]
        return Tokens(a, d * scale if scale != 1 else d, part.form, size)
    a = (a * scale if scale != 1 else a).astype(d.dtype)
    ones = [jnp.full((*a.shape[:2], 1), value, a.dtype) for _, value in part.columns]
    return Outer(jnp.concatenate([a, *ones], axis=2) if ones else a, d, part.form)


def _leaf_gradient(use: Use, known: Any, cotangent: Any, leaf: Any) -> Any:
    """Gradient of the whole parameter by one use, for one cotangent."""
    rule = use.rule
    if rule.kind == "direct":
        operand = () if rule.operand is None else (_operand(use, known),)
        gradient = rule.gradient(*operand, cotangent)
    elif rule.kind == "tokens":
        gradient = rule.gradient(rule.inputs(_operand(use, known)), rule.cotangents(cotangent))
    else:
        a, d = rule.inputs(_operand(use, known)), rule.cotangents(cotangent)
        gradient = rule.gradient(jnp.einsum("bti,bto->boi", a.astype(d.dtype), d))

    def view(value):
        for step in use.view.steps:
            (value,) = bind(step, [a.val if is_literal(a) else value for a in step.invars])
        return value

    target = use.equation.invars[use.position].aval
    (result,) = jax.linear_transpose(view, jax.ShapeDtypeStruct(leaf.aval.shape, leaf.aval.dtype))(
        gradient.reshape(target.shape).astype(target.dtype)
    )
    return result
