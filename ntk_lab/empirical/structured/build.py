"""From ``f(params, x)`` to a program, cached by function and shapes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.fixed import Fixed
from ntk_lab.empirical.release import release
from ntk_lab.empirical.structured import program as programs
from ntk_lab.empirical.structured.factors import Factor
from ntk_lab.empirical.structured.narrow import narrowed
from ntk_lab.empirical.structured.program import Part
from ntk_lab.empirical.structured.readout import readout_of
from ntk_lab.empirical.structured.trace import flatten
from ntk_lab.empirical.structured.uses import Uses, find_uses, merge_biases


class Program:
    """A traced function of one example and its parts; `features` is compiled once a choice."""

    def __init__(self, closed: Any, consts: Sequence[Any], leaf_count: int, parts: Sequence[Part]):
        self.closed, self.consts, self.leaf_count = closed, list(consts), leaf_count
        self.parts = tuple(parts)
        self.outputs: int = closed.jaxpr.outvars[0].aval.shape[0]
        self.checked = False
        self._compiled = compiled(self._features, static_argnums=0, sequential=True)
        self.run: Any = compiled(self._consumed, static_argnums=0, sequential=True)
        self._prepared: set[Any] = set()

    def features(
        self, parts: Sequence[Part], leaves: Sequence[Any], inputs: Sequence[Any], basis: Any
    ) -> list[Factor]:
        """What each part contributes, for a batch and a set of cotangents."""
        values = [*self.consts, *leaves]
        return self._compiled(tuple(parts), values, list(inputs), basis)

    def consumed(
        self,
        parts: Sequence[Part],
        consume: Callable[..., Any],
        leaves: Sequence[Any],
        inputs: tuple[Any, Any],
        bases: tuple[Any, Any],
    ) -> Any:
        """What ``consume`` makes of the contributions of one batch (the other None) or of two.

        One compiled program, which holds no contribution for longer than it needs it. ``consume``
        can be hashed. ``run`` is the same for ``Fixed((parts, consume))`` and the values with
        constants.
        """
        values = [*self.consts, *leaves]
        choice = Fixed((tuple(parts), consume))
        self._prepare(choice, values, inputs, bases)
        return self.run(choice, values, inputs, bases)

    def _prepare(self, choice: Fixed, values: Any, inputs: Any, bases: Any) -> None:
        """Compile, and hand back the memory that this took before the program takes its own."""
        key = choice, tuple(leaf.shape for leaf in jax.tree.leaves((inputs, bases)))
        known = key in self._prepared
        if known or jax.default_backend() != "cpu" or not is_concrete(values, inputs, bases):
            return
        self._prepared.add(key)
        self.run.lower(choice, values, inputs, bases).compile()
        release(0)

    def evaluate(self, leaves: Sequence[Any], example: Sequence[Any]) -> Any:
        """Outputs of one example, flattened."""
        return programs.outputs(self.closed, [*self.consts, *leaves, *example])

    def _consumed(self, choice, values, inputs, bases):
        parts, consume = choice.value
        left, right = (
            None if batch is None else self._features(parts, values, batch, basis)
            for batch, basis in zip(inputs, bases, strict=True)
        )
        return consume(left, right)

    def _features(self, parts, values, inputs, basis):
        return programs.features(self.closed, parts, self.leaf_count, values, inputs, basis)


@dataclass(frozen=True)
class Signature:
    """What a program depends on beside the function: trees, shapes, dtypes, settings."""

    params: Any
    leaves: tuple[Any, ...]
    x: Any
    inputs: tuple[Any, ...]
    selected: tuple[int, ...]
    structured: bool
    merge: bool
    x64: bool
    precision: Any


def build(f: Callable[..., Any], signature: Signature) -> Program:
    """The program, from the cache where neither it nor the function holds traced values."""
    try:
        hash(f)
    except TypeError:
        return _build(f, signature)
    program = _cached(f, signature)
    if not is_concrete(program.consts):
        _cached.cache_clear()
    return program


@lru_cache(maxsize=64)
def _cached(f: Callable[..., Any], signature: Signature) -> Program:
    return _build(f, signature)


def _build(f: Callable[..., Any], signature: Signature) -> Program:
    def one(*args):
        leaves, inputs = args[: len(signature.leaves)], args[len(signature.leaves) :]
        params = jax.tree.unflatten(signature.params, leaves)
        x = jax.tree.unflatten(signature.x, [leaf[None] for leaf in inputs])
        return [f(params, x).reshape(-1)]

    args = [*signature.leaves, *signature.inputs]
    flat, consts = flatten(one, *args)
    avals = [jax.typeof(c) for c in consts]
    closed = narrowed(flat, avals, args)
    count = len(consts)
    numbers = {closed.jaxpr.invars[count + leaf]: leaf for leaf in signature.selected}
    if signature.structured:
        parts = _parts(closed.jaxpr, find_uses(closed.jaxpr, numbers), signature)
    else:
        parts = [Part(leaf, "opaque", reason="method 'jacobian'") for leaf in signature.selected]
    return Program(closed, consts, len(signature.leaves), parts)


def _parts(jaxpr: Any, uses: Uses, signature: Signature) -> list[Part]:
    merged = merge_biases(jaxpr, uses, signature.selected) if signature.merge else {}
    absorbed = {bias for _, columns in merged.values() for bias, _ in columns}
    parts = []
    for leaf in signature.selected:
        if leaf in absorbed:
            continue
        if leaf in merged:
            use, columns = merged[leaf]
            part = Part(leaf, "outer", (use,), tuple(columns))
            parts.append(replace(part, readout=_readout(jaxpr, part)))
        elif leaf in uses.opaque:
            parts.append(Part(leaf, "opaque", reason=uses.opaque[leaf]))
        elif leaf in uses.found:
            part = _part(leaf, tuple(uses.found[leaf]))
            parts.append(replace(part, readout=_readout(jaxpr, part)))
    return parts


def _readout(jaxpr: Any, part: Part) -> Any:
    """Where the channels of a part arrive one by one, if it is one that can use that."""
    b, t, _, _ = part.sizes if part.kind == "outer" else (0, 0, 0, 0)
    use = part.uses[0]
    if b != 1 or t == 1 or len(part.uses) != 1 or len(use.rule.free) != 1:
        return None
    return readout_of(jaxpr, use.place, use.rule.free[0])


def _part(leaf: int, uses: tuple[Any, ...]) -> Part:
    first = uses[0]
    alike = all(
        u.rule.kind == first.rule.kind
        and u.rule.layout == first.rule.layout
        and u.view.signature == first.view.signature
        for u in uses
    )
    if first.rule.kind == "direct":
        return Part(leaf, "direct", uses)
    if not alike:
        return Part(leaf, "direct", uses, reason="used in several ways: gradients are added up")
    if not first.view.one_to_one:
        return Part(leaf, "direct", uses, reason="entries are repeated before the use")
    return Part(leaf, "tokens" if first.rule.kind == "tokens" else "outer", uses)
