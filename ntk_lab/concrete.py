"""Telling values that can be looked at from values that are being traced."""

from typing import Any

import jax

# Types of arrays that have turned out to hold values: asking each array takes its time.
_HOLD_VALUES: set[type] = set()


def is_concrete(*trees: Any) -> bool:
    """Whether no array in the trees is being traced by ``jit``, ``grad`` or ``vmap``."""
    try:
        for leaf in jax.tree.leaves(trees):
            if type(leaf) not in _HOLD_VALUES and isinstance(leaf, jax.Array):
                _ = leaf.is_fully_addressable
                _HOLD_VALUES.add(type(leaf))
    except jax.errors.ConcretizationTypeError:
        return False
    return True
