"""Telling values that can be looked at from values that are being traced."""

from typing import Any

import jax


def is_concrete(*trees: Any) -> bool:
    """Whether no array in the trees is being traced by ``jit``, ``grad`` or ``vmap``."""
    try:
        for leaf in jax.tree.leaves(trees):
            if isinstance(leaf, jax.Array):
                _ = leaf.is_fully_addressable
    except jax.errors.ConcretizationTypeError:
        return False
    return True
