"""Operations of a jaxpr, carried out one by one on other values."""

from collections.abc import Sequence
from typing import Any

from jax.extend import core


def bind(equation: Any, values: Sequence[Any], **changes: Any) -> list[Any]:
    """Results of one operation on other values, with some of its settings changed."""
    settings = {**equation.params, **changes}
    settings = equation.primitive.get_bind_params(settings)
    results = equation.primitive.bind(*values, **settings)
    return list(results) if equation.primitive.multiple_results else [results]


def is_literal(atom: Any) -> bool:
    """Whether an operand is a constant written into the list of operations."""
    return isinstance(atom, core.Literal)
