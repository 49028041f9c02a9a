"""What tells one function, or one set of arrays, from another."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.empirical.arguments import Arguments

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def program_text(jaxpr: Any) -> str:
    """A program as text that is the same in every process."""
    return _ADDRESS.sub("", str(jaxpr))


def constants(jaxpr: Any) -> Iterator[Any]:
    """Arrays inside a program that its text does not show."""
    for equation in jaxpr.eqns:
        for variable in equation.invars:
            if np.size(getattr(variable, "val", 0)) > 1:
                yield variable.val
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if hasattr(value, "consts"):
                yield from value.consts
            if _is_program(value):
                yield from constants(getattr(value, "jaxpr", value))


def gradient_program(args: Arguments) -> Any:
    """The program of a gradient of one example: what custom rules of derivatives do is in it.

    Programs of functions name such rules without what they say. By all parameters, so that it does
    not depend on which are selected.
    """
    floats = [i for i, v in enumerate(args.leaves) if jnp.issubdtype(v.dtype, jnp.floating)]

    def gradient(leaves: list[Any], x: Any) -> Any:
        def of(moving: list[Any]) -> Any:
            whole = list(leaves)
            for i, leaf in zip(floats, moving, strict=True):
                whole[i] = leaf
            return args.f(jax.tree.unflatten(jax.tree.structure(args.params), whole), x)

        moving = [leaves[i] for i in floats]
        try:
            out, pull = jax.vjp(of, moving)
            return pull(out)
        except ValueError:  # loops of unknown length go forwards only
            return jax.jvp(of, (moving,), (moving,))

    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), args.inputs1)
    x = jax.tree.unflatten(jax.tree.structure(args.x1), one)
    return jax.make_jaxpr(gradient)(args.leaves, x)


def digest(texts: list[str], arrays: list[Any]) -> str:
    """A hash of texts and of values, shapes and dtypes of arrays."""
    found = hashlib.blake2b(digest_size=12)
    for text in texts:
        found.update(f"{len(text)}:{text}".encode())
    for array in arrays:
        if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        array = np.ascontiguousarray(array)
        found.update(f"{array.shape}{array.dtype}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _is_program(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")
