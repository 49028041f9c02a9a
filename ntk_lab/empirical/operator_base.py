"""What the methods of the operator need of it, and how their arguments are checked."""

from abc import ABC, abstractmethod
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.empirical.products import Network
from ntk_lab.errors import InputError


class Products(ABC):
    """A matrix that is known by its products, over the outputs of a network."""

    net: Network
    inputs1: list[Any]
    dtype: Any

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix."""

    @property
    @abstractmethod
    def vector_shape(self) -> tuple[int, ...]:
        """Shape of a vector that it is multiplied by."""

    @property
    @abstractmethod
    def T(self) -> "Products":
        """The transpose."""

    @abstractmethod
    def __matmul__(self, v: Any) -> jax.Array:
        """The product with a vector, or a stack of vectors along the last axis."""

    @abstractmethod
    def diagonal(self) -> jax.Array:
        """Diagonal entries, of the shape of a vector."""

    @abstractmethod
    def _columns(self, v: jax.Array) -> tuple[jax.Array, tuple[int, ...]]:
        """As a matrix ``(N, m)``, and the shape of the product."""

    @abstractmethod
    def _square(self, what: str) -> None:
        """Refuse kernels of two batches."""

    def _sized(self, what: str) -> int:
        """Size of a matrix that is square and not empty."""
        self._square(what)
        if 0 in self.shape:
            raise InputError(f"{what} needs examples; the kernel has shape {self.shape}.")
        return self.shape[0]


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """An argument that must be an integer in a range."""
    wrong = isinstance(value, bool) or not isinstance(value, int) or value < least
    if wrong or (most is not None and value > most):
        bound = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name}={value!r}; it must be an integer {bound}.")
    return value


def not_negative(name: str, value: Any, positive: bool = False) -> float:
    """An argument that must be a finite number, zero or more."""
    number = float(value)
    if not (number > 0 if positive else number >= 0) or number == float("inf"):
        kind = "positive" if positive else "zero or positive"
        raise InputError(f"{name}={number}; it must be a finite number, {kind}.")
    return number


def precision(dtype: Any, tol: Any) -> float:
    """A relative tolerance; by default one that rounding allows."""
    if tol is None:
        return 1e-10 if jnp.dtype(dtype) == jnp.float64 else 1e-5
    return not_negative("tol", tol, positive=True)
