"""JAX takes this memory over instead of copying it."""

import jax
import numpy as np
import pytest

from ntk_lab.aligned import aligned


@pytest.mark.parametrize("shape", [(3, 5), (1,), (7, 2, 3), (0, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, bool])
def test_jax_uses_the_same_memory(shape, dtype):
    memory = aligned(shape, dtype, zeros=True)
    assert (memory.shape, memory.dtype) == (shape, dtype)
    assert not memory.any()
    memory[...] = 1
    taken = jax.device_put(memory)
    assert (taken.shape, taken.dtype) == (shape, dtype)
    assert taken.all()
    assert memory.size == 0 or np.shares_memory(np.asarray(taken), memory)
