"""One flat list of operations for a function: calls inlined, scalar constants folded."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ntk_lab.equations import bind, is_literal

# Calls that mean no more than their body. Custom derivative rules are not among them.
_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
_FOLDED = 64  # entries; larger constants stay operations
# Operations of a loop, over all its steps, up to which its steps are written out: a parameter used
# in each of them then has as many uses, each with its rule. Longer ones would take long to compile.
_UNROLLED = 1024


def flatten(function: Callable[..., Sequence[Any]], *args: Any) -> Any:
    """Closed jaxpr of ``function(*args)`` without calls, its constants as in ``make_jaxpr``."""
    closed = jax.make_jaxpr(function)(*args)
    count = len(closed.consts)

    def inlined(*values):
        return _inline(closed.jaxpr, values[:count], values[count:])

    flat = jax.make_jaxpr(inlined)(*closed.consts, *jax.tree.leaves(args))
    return flat, closed.consts


class _Known:
    """A value that is the same for all parameters and inputs."""

    def __init__(self, value: Any):
        self.value = np.asarray(value)


def _inline(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    results = _walk(jaxpr, [*consts, *args])
    return [r.value if isinstance(r, _Known) else r for r in results]


def _walk(jaxpr: Any, values: Sequence[Any]) -> list[Any]:
    env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], values, strict=True))

    def read(atom):
        if not is_literal(atom):
            return env[atom]
        return _Known(atom.val) if np.ndim(atom.val) == 0 else atom.val

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        body = _body(equation)
        if body is not None:
            inner, consts = body
            results = _walk(inner, [*consts, *operands])
        elif _unrolls(equation):
            results = _steps(equation, operands)
        elif _foldable(equation, operands):
            with jax.ensure_compile_time_eval():
                results = bind(equation, [o.value for o in operands])
            results = [_Known(r) for r in results]
        else:
            plain = [_scalar(o) if isinstance(o, _Known) else o for o in operands]
            results = bind(equation, plain)
        env.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _unrolls(equation: Any) -> bool:
    if equation.primitive.name != "scan" or equation.effects:
        return False
    operations = equation.params["length"] * _operations(equation.params["jaxpr"].jaxpr)
    return 0 < operations <= _UNROLLED


def _operations(jaxpr: Any) -> int:
    """Number of operations, those of calls and loops inside included."""
    total = 0
    for equation in jaxpr.eqns:
        bodies = (getattr(value, "jaxpr", value) for value in equation.params.values())
        inner = sum(_operations(body) for body in bodies if hasattr(body, "eqns"))
        total += inner * equation.params.get("length", 1) if inner else 1
    return total


def _steps(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """Results of a scan, one step after the other."""
    length, reverse, body = (equation.params[k] for k in ("length", "reverse", "jaxpr"))
    # What is carried has the same shape inside; sequences have one more axis outside.
    read = _more_axes(equation.invars, body.jaxpr.invars).count(True)
    carried = _more_axes(equation.outvars, body.jaxpr.outvars).count(False)
    first, last = len(operands) - read - carried, len(operands) - read
    fixed, carry, sequences = operands[:first], operands[first:last], operands[last:]
    outputs: list[list[Any]] = []
    for step in range(length - 1, -1, -1) if reverse else range(length):
        slices = [lax.index_in_dim(x, step, keepdims=False) for x in sequences]
        results = _walk(body.jaxpr, [*body.consts, *fixed, *carry, *slices])
        carry = results[:carried]
        outputs.append([_scalar(y) if isinstance(y, _Known) else y for y in results[carried:]])
    if reverse:
        outputs.reverse()
    stacked = [jnp.stack([jnp.asarray(y) for y in ys]) for ys in zip(*outputs, strict=True)]
    return [*carry, *stacked]


def _more_axes(outside: Sequence[Any], inside: Sequence[Any]) -> list[bool]:
    pairs = zip(outside, inside, strict=True)
    return [len(a.aval.shape) > len(b.aval.shape) for a, b in pairs]


def _scalar(known: _Known) -> Any:
    return known.value[()] if known.value.ndim == 0 else known.value


def _body(equation: Any) -> tuple[Any, Sequence[Any]] | None:
    if equation.primitive.name not in _CALLS:
        return None
    body = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    if body is None:
        return None
    return getattr(body, "jaxpr", body), getattr(body, "consts", ())


def _foldable(equation: Any, operands: Sequence[Any]) -> bool:
    if not operands or not all(isinstance(o, _Known) for o in operands):
        return False
    if equation.effects or equation.primitive.multiple_results:
        return False
    aval = equation.outvars[0].aval
    return not aval.shape and not jnp.issubdtype(aval.dtype, jax.dtypes.extended)
