"""Free memory handed back to the system."""

import ctypes
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # another C library than glibc
        return None


def release() -> None:
    """Give pages that the C library holds but nobody uses back to the system.

    After arrays of many sizes glibc keeps up to twice what is in use, and a limit on memory would
    be passed by what is free. Elsewhere this does nothing.
    """
    trim = _trim()
    if trim is not None:
        trim(0)
