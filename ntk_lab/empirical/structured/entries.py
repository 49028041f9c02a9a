"""Operations that act on each entry of an array by itself."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from ntk_lab.empirical.structured.trace import flatten
from ntk_lab.equations import bind

_ENTRIES = """
abs add and atan2 cbrt ceil clamp convert_element_type copy copy_p cos cosh div eq erf erf_inv erfc
exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p log2 logistic lt max min mul name ne
neg nextafter not one_minus_square or pow real imag reduce_precision rem round rsqrt select_n sign
sin sinh sqrt square stop_gradient sub tan tanh xor
"""
ELEMENTWISE = frozenset(_ENTRIES.split())


def acts_on_entries(equation: Any) -> bool:
    """Whether a function with its own derivative rule, and that rule, look at one entry only."""

    def derivative(primals, tangents):
        (value,), (change,) = jax.jvp(lambda *p: bind(equation, p), primals, tangents)
        return [value, change]

    avals = [jax.ShapeDtypeStruct(a.aval.shape, a.aval.dtype) for a in equation.invars]
    if any(not jnp.issubdtype(a.dtype, jnp.floating) for a in avals):
        return False
    flat, _ = flatten(derivative, tuple(avals), tuple(avals))
    shape, name = equation.outvars[0].aval.shape, equation.params.get("name")
    return all(_on_entries(e, shape, name) for e in flat.jaxpr.eqns)


def _on_entries(equation: Any, shape: tuple[int, ...], name: str | None) -> bool:
    if any(v.aval.shape not in ((), shape) for v in [*equation.invars, *equation.outvars]):
        return False
    if equation.primitive.name == "custom_jvp_call":
        # A rule evaluates the function itself, which has the same rule again.
        body = equation.params["call_jaxpr"]
        flat, _ = flatten(core.jaxpr_as_fun(body), *body.in_avals)
        same = equation.params.get("name") == name
        return same and all(_on_entries(e, shape, name) for e in flat.jaxpr.eqns)
    return equation.primitive.name in ELEMENTWISE or _repeats_a_scalar(equation)


def _repeats_a_scalar(equation: Any) -> bool:
    return equation.primitive.name == "broadcast_in_dim" and not equation.invars[0].aval.shape
