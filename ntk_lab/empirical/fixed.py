"""What compiled programs depend on beside arrays, hashed once and not at every call."""

from typing import Any


class Fixed:
    """Any hashable value; equal values are equal, and the same one is found at once."""

    __slots__ = ("_hash", "value")

    def __init__(self, value: Any):
        self.value, self._hash = value, hash(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Fixed) and self._hash == other._hash and self.value == other.value
