"""Free memory handed back to the system."""

import ctypes
import os
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # another C library than glibc
        return None


def resident() -> float:
    """Bytes of memory that this process holds; zero where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError):
        return 0.0


def release(above: float) -> None:
    """Give pages that the C library holds but nobody uses back to the system.

    After arrays of many sizes glibc keeps up to twice what is in use, and a limit on memory would
    be passed by what is free. Only if the process holds more than ``above`` bytes: fresh pages
    take time. With other libraries than glibc this does nothing.
    """
    trim = _trim()
    if trim is not None and resident() > above:
        trim(0)
