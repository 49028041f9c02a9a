"""Seeds over the devices of a mesh, in one process or in many."""

import json
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ntk_lab.processes import is_of_many, of_all, texts_of_all


@dataclass(frozen=True)
class Spread:
    """Which device trains which seeds.

    ``shares`` are places of seeds for each device of this process that has some, ``owners`` the
    process of each seed, and ``largest`` the size of the largest share of any device. Without a
    mesh the one device is None.
    """

    devices: tuple[Any, ...]
    shares: tuple[list[int], ...]
    owners: np.ndarray
    largest: int
    many: bool

    @property
    def on_cpu(self) -> bool:
        """Whether devices are CPUs."""
        first = next(iter(self.devices), None)
        return (jax.default_backend() if first is None else first.platform) == "cpu"

    def whole(self, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays with seeds on the first axis, after every process filled in those of its own."""
        if not self.many:
            return found
        own = {name: (array.dtype.name, array.shape) for name, array in found.items()}
        # A process without seeds does not know what is recorded.
        told = next(text for text in texts_of_all(json.dumps(own) if own else "") if text)
        for name, (dtype, shape) in json.loads(told).items():
            array = found.setdefault(name, np.zeros(shape, jnp.dtype(dtype)))
            self._exchange(array)
        return found

    def _exchange(self, array: np.ndarray) -> None:
        """One seed of each process at a time: the memory of the result is needed only once."""
        if not array[0].nbytes:
            return
        rows = [np.flatnonzero(self.owners == p) for p in range(jax.process_count())]
        mine = rows[jax.process_index()]
        for turn in range(max(map(len, rows))):
            own = array[mine[turn]] if turn < len(mine) else np.zeros_like(array[0])
            for theirs, row in zip(rows, of_all(own), strict=True):
                if turn < len(theirs):
                    array[theirs[turn]] = row


def spread(mesh: Mesh | None, seeds: int) -> Spread:
    """Consecutive seeds on each device, in the order of the mesh; the first ones have one more."""
    if mesh is None:
        return Spread((None,), (list(range(seeds)),), np.zeros(seeds, int), seeds, False)
    devices = list(mesh.devices.flat)
    shares = [part.tolist() for part in np.array_split(np.arange(seeds), len(devices))]
    owners = np.repeat([d.process_index for d in devices], [len(part) for part in shares])
    here = [
        (device, part)
        for device, part in zip(devices, shares, strict=True)
        if part and device.process_index == jax.process_index()
    ]
    return Spread(
        tuple(d for d, _ in here), tuple(p for _, p in here), owners, len(shares[0]),
        is_of_many(mesh),
    )  # fmt: skip


def without_mesh() -> Any:
    """A context in which arrays belong to one device each, whatever ``jax.set_mesh`` set before."""
    return jax.set_mesh(Mesh(np.empty((), object), ()))


def put(tree: Any, device: Any) -> Any:
    """Arrays on a device; as they are without one."""
    return tree if device is None else jax.device_put(tree, device)


def on_host(array: Any) -> Any:
    """An array in this process's memory, however it is spread, in a dtype that JAX would give it.

    Seeds of all devices together may be more than one of them holds.
    """
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    array = np.asarray(array)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
