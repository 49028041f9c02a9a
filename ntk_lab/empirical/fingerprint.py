"""What tells one function, or one set of arrays, from another."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
