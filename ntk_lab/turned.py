"""Products with large matrices that CPUs compute faster: a matrix is turned first."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ntk_lab.equations import bind, is_literal

# Entries of a weight from which on turning it pays, and of a factor of a Gram product.
_LARGE_WEIGHT, _LARGE_FACTOR = 2**18, 2**19


def is_turnable(equation: Any) -> bool:
    """Whether an operation of a jaxpr is a product ``x w`` with a large matrix, on a CPU."""
    if equation.primitive.name != "dot_general" or jax.default_backend() != "cpu":
        return False
    (x, w), out = (v.aval for v in equation.invars), equation.outvars[0].aval
    plain = equation.params["dimension_numbers"] == (((x.ndim - 1,), (0,)), ((), ()))
    large = w.ndim == 2 and w.size >= _LARGE_WEIGHT
    return plain and large and x.dtype == w.dtype == out.dtype


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def turned_product(x: jax.Array, w: jax.Array, precision: Any) -> jax.Array:
    """``x w`` over the last axis of ``x`` and the first of ``w``; its pullback turns ``w``.

    XLA on CPU takes 3.4 ns to pack each entry of a matrix that is contracted along its rows, as
    the pullback ``D w^T`` does; to turn it takes 0.5 to 1 ns.
    """
    return _over_last(x, w, precision)


def _over_last(x: jax.Array, w: jax.Array, precision: Any) -> jax.Array:
    return lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())), precision=precision)


def _forward(x: jax.Array, w: jax.Array, precision: Any) -> tuple[jax.Array, Any]:
    return _over_last(x, w, precision), (x, w)


def _pullback(precision: Any, known: Any, d: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, w = known
    rows = tuple(range(x.ndim - 1))
    dw = lax.dot_general(x, d, ((rows, rows), ((), ())), precision=precision)
    return _over_last(d, _turned(w), precision), dw


turned_product.defvjp(_forward, _pullback)


def bind_turned(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """Results of one operation, with a pullback that turns a large matrix if it is a product."""
    if is_turnable(equation):
        return [turned_product(*operands, equation.params["precision"])]
    return bind(equation, operands)


def with_turned_products(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` with the same values, whose pullback turns large matrices; it has no forward mode.

    Products in the function itself and in what it calls by ``jit``; those in loops, branches,
    ``remat`` and functions with derivative rules of their own stay as they are.
    """

    def call(*args: Any) -> Any:
        closed, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
        results = _walk(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return call


def _walk(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    read = lambda atom: atom.val if is_literal(atom) else env[atom]  # noqa: E731
    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        if equation.primitive.name in ("jit", "pjit"):
            body = equation.params["jaxpr"]
            results = _walk(body.jaxpr, body.consts, operands)
        else:
            results = bind_turned(equation, operands)
        env.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def gram_product(a: jax.Array, b: jax.Array, precision: Any) -> jax.Array:
    """``a b^T`` of two matrices of rows."""
    wide = a.shape[0] >= a.shape[1] / 4  # else turning takes longer than the product
    if wide and b.size >= _LARGE_FACTOR and jax.default_backend() == "cpu":
        return jnp.matmul(a, _turned(b), precision=precision)
    return jnp.matmul(a, b.T, precision=precision)


def _turned(w: jax.Array) -> jax.Array:
    """``w^T``, in memory: else it would be read in the order of ``w`` all the same.

    As a matrix XLA would copy it as it is, and turn it in a second, slower pass.
    """
    rows, columns = w.shape
    return lax.optimization_barrier(w[None].transpose(2, 0, 1).reshape(columns, rows))
