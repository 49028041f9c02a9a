"""What several processes of one mesh tell each other, so that none of them waits in vain."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ntk_lab import errors
from ntk_lab.errors import InputError


def read_mesh(mesh: Any, axis: str) -> Mesh:
    """A mesh of one axis, of devices of this process or of all; ``axis`` is what to call it."""
    if not isinstance(mesh, Mesh):
        raise InputError(
            f"mesh is {type(mesh).__name__}; expected a jax.sharding.Mesh, such as "
            f"jax.make_mesh((jax.device_count(),), ({axis!r},))."
        )
    if len(mesh.axis_names) != 1:
        raise InputError(
            f"the mesh has axes {mesh.axis_names}; one is needed, such as "
            f"jax.make_mesh((jax.device_count(),), ({axis!r},))."
        )
    found = {device.process_index for device in mesh.devices.flat}
    if found not in ({jax.process_index()}, set(range(jax.process_count()))):
        raise InputError(
            f"the mesh has devices of the processes {sorted(found)}, and this is process "
            f"{jax.process_index()} of {jax.process_count()}. Give devices of all processes "
            "(jax.devices()), or only of this one (jax.local_devices())."
        )
    return mesh


def is_of_many(mesh: Mesh) -> bool:
    """Whether devices belong to several processes."""
    return len({device.process_index for device in mesh.devices.flat}) > 1


def from_first(value: np.ndarray) -> np.ndarray:
    """The array of the first process, for all of them; shapes and dtypes are equal."""
    # As bytes: where 64 bits are switched off, numbers would be rounded.
    sent = multihost_utils.broadcast_one_to_all(_bytes_of(value))
    return np.frombuffer(np.asarray(sent).tobytes(), value.dtype).reshape(value.shape)


def of_all(value: np.ndarray) -> np.ndarray:
    """Arrays of all processes, stacked in their order; shapes and dtypes are equal."""
    sent = multihost_utils.process_allgather(_bytes_of(value))
    whole = np.frombuffer(np.asarray(sent).tobytes(), value.dtype)
    return whole.reshape(jax.process_count(), *value.shape)


def texts_of_all(text: str) -> list[str]:
    """Texts of all processes, of any lengths."""
    content = text.encode()
    lengths = of_all(np.asarray(len(content), np.int64))
    if not lengths.max():
        return [""] * len(lengths)
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    rows = zip(of_all(padded), lengths, strict=True)
    return [row[:length].tobytes().decode() for row, length in rows]


@contextmanager
def together(many: bool) -> Iterator[None]:
    """An error of one process in the block becomes an error of all of ``many`` at its end.

    Nothing in the block may wait for other processes. Interrupts are not passed on.
    """
    if not many:
        yield
        return
    try:
        yield
    except Exception as error:
        texts_of_all(f"{type(error).__name__}: {error}")
        raise
    for process, text in enumerate(texts_of_all("")):
        if text:
            name, _, message = text.partition(": ")
            known = {"InputError", "NumericalError", "StabilityError"}
            kind = getattr(errors, name) if name in known else RuntimeError
            said = message if name in known else text
            raise kind(f"process {process} of {jax.process_count()} failed: {said}")


def _bytes_of(value: np.ndarray) -> np.ndarray:
    return np.frombuffer(value.tobytes(), np.uint8)
