"""Memory of NumPy that JAX takes over on CPUs without a copy."""

import math

import numpy as np

_BYTES = 64


def aligned(shape: tuple[int, ...], dtype: np.dtype, zeros: bool = False) -> np.ndarray:
    """An array that ``jax.device_put`` takes over as it is, empty or of zeros."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = (np.zeros if zeros else np.empty)(size + _BYTES, np.uint8)
    first = -memory.ctypes.data % _BYTES
    return memory[first : first + size].view(dtype).reshape(shape)
