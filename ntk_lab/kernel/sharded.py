"""Products with a kernel that is spread over the devices of a mesh, in one process or in many."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError
from ntk_lab.kernel.computed import Computed
from ntk_lab.kernel.evaluate import carried, tile_of
from ntk_lab.kernel.graph import Graph
from ntk_lab.kernel.masked import Masked
from ntk_lab.kernel.matrix import KernelMatrix
from ntk_lab.kernel.plan import available_memory
from ntk_lab.kernel.source import Computes
from ntk_lab.kernel.state import Inputs
from ntk_lab.processes import from_first, is_of_many, of_all, read_mesh


class ShardedMatrix(KernelMatrix):
    """A symmetric kernel of which each device of a mesh computes its share, anew for each product.

    Each device holds the inputs of some rows. For a product these travel around the ring of
    devices half-way, so that each tile is computed on one device for itself and its mirror image
    (for an even number of devices, those half-way around on two).

    Parameters
    ----------
    job
        What is computed, in which tiles and within which memory of each device.
    which
        "ntk" or "nngp".
    mesh
        Of one axis; of the devices of one process, or of all processes after
        ``jax.distributed.initialize``. All processes give the same data and make the same calls.

    Raises
    ------
    InputError
        A mesh of several axes, or of some but not all processes; inputs with masks or edges.
    """

    def __init__(self, job: Computed, which: str, mesh: Mesh):
        super().__init__(job, which)
        mesh = read_mesh(mesh, "rows")
        if isinstance(job.x1, Graph | Masked):
            raise InputError("inputs with masks or edges are not spread over devices.")
        self.mesh, self._axis, n = mesh, mesh.axis_names[0], self.shape[0]
        self.many = is_of_many(mesh)
        share = -(-n // mesh.size)
        # Processes with other memory free may have other tiles in mind.
        side = int(self.agreed(np.asarray(min(job.side, share))))
        self._side = -(-share // -(-share // side))
        self._rows = -(-share // self._side) * self._side * mesh.size
        x = np.asarray(job.x1)
        padded = np.concatenate([x, np.repeat(x[-1:], self._rows - n, axis=0)])
        finite = isinstance(job.net, Computes)
        floating = not finite and job.net.vocabulary_size is None
        self._x = self._spread(padded.astype(job.dtype) if floating else padded)
        self._carry = None if finite else carried(job.net, self._x)
        self._arrays = job.net.arrays if finite else ()

    def product(self, v: np.ndarray, precise: bool = True) -> np.ndarray:
        """``K @ v`` for ``v`` of shape ``(n, m)``, the same on each process, in float64.

        ``precise``: sums in double precision; otherwise in the kernel's own.
        """
        n = self.shape[0]
        dtype = np.dtype(np.float64) if precise else self.dtype
        padded = np.zeros((self._rows, v.shape[1]), dtype)
        padded[:n] = v
        with jax.enable_x64(True if precise else jnp.result_type(float) == jnp.float64):
            out = _product(
                self.job.net, self._carry, self.which, self.mesh, self._side, self._arrays,
                self._x, self._spread(padded),
            )  # fmt: skip
        # Every device has all of it.
        return np.asarray(out.addressable_data(0), np.float64)[:n]

    @property
    def leads(self) -> bool:
        """Whether this process is the one that keeps files for all of them."""
        return not self.many or jax.process_index() == 0

    def agreed(self, value: np.ndarray) -> np.ndarray:
        """The array of the first process, for all of them; shapes and dtypes are equal."""
        return from_first(value) if self.many else value

    def _spread(self, array: np.ndarray) -> jax.Array:
        sharding = NamedSharding(self.mesh, P(self._axis))
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def memory_of_all(mesh: Mesh, memory: float | None) -> float | None:
    """A memory limit that is the same in all processes: of what each may take, the least.

    It decides sizes that all of them have to agree on, such as the rank of a preconditioner.
    """
    if memory is not None or not is_of_many(mesh):
        return memory
    return int(of_all(np.asarray(available_memory(None, math.inf), np.int64)).min())


@compiled(static_argnums=(0, 1, 2, 3, 4))
def _product(net: Any, carry: Any, which: str, mesh: Mesh, side: int, arrays: Any, x, v):
    axis = mesh.axis_names[0]
    ring = partial(_ring, net, carry, which, axis, mesh.size, side)
    # What devices hold differs in loops in ways that shard_map does not follow.
    spread = jax.shard_map(
        ring, mesh=mesh, in_specs=(P(), P(axis), P(axis)), out_specs=P(), check_vma=False
    )
    return spread(arrays, x, v)


def _ring(net, carry, which, axis, devices: int, side: int, arrays, x: jax.Array, v: jax.Array):
    """One device's part: its rows against those that come by, which take their share along."""
    half = devices // 2
    to_left = [(s, (s - 1) % devices) for s in range(devices)]
    home = [(s, (s + half) % devices) for s in range(devices)]
    out, guests = jnp.zeros_like(v), (x, v, jnp.zeros_like(v))
    for step in range(half + 1):
        if step:
            guests = jax.lax.ppermute(guests, axis, to_left)
        both = step > 0 and 2 * step != devices
        tile = partial(_tile, net, carry, arrays, which, side, step == 0)
        out, taken = _blocks(tile, side, both, x, v, guests, out)
        guests = (*guests[:2], taken)
    out = out + jax.lax.ppermute(guests[2], axis, home)
    return jax.lax.all_gather(out, axis, tiled=True)


def _blocks(tile, side: int, both: bool, x, v, guests, out) -> tuple[jax.Array, jax.Array]:
    """Products of all tiles of own rows and guests: own sums, and those that guests take along."""
    there, v_there, taken = guests
    count = len(x) // side

    def body(sums, place):
        i, j = side * (place // count), side * (place % count)
        rows, columns = (jax.lax.dynamic_slice_in_dim(a, s, side) for a, s in ((x, i), (there, j)))
        block = tile(rows, columns, i, j).astype(v.dtype)
        mine, theirs = sums
        mine = _add(mine, i, block, v_there, j, side)
        if both:
            theirs = _add(theirs, j, block.T, v, i, side)
        return (mine, theirs), None

    sums, _ = jax.lax.scan(body, (out, taken), jnp.arange(count**2))
    return sums


def _add(sums: jax.Array, at, block: jax.Array, v: jax.Array, of, side: int) -> jax.Array:
    part = jax.lax.dynamic_slice_in_dim(v, of, side)
    new = jnp.matmul(block, part, precision=jax.lax.Precision.HIGHEST)
    old = jax.lax.dynamic_slice_in_dim(sums, at, side)
    return jax.lax.dynamic_update_slice_in_dim(sums, old + new, at, axis=0)


def _tile(net, carry, arrays, which, side: int, own: bool, rows, columns, i, j) -> jax.Array:
    if isinstance(net, Computes):
        return net.traced(arrays, which, rows, columns)
    index = jnp.arange(side)
    same = (i + index[:, None] == j + index[None, :]) & own
    return getattr(tile_of(net, Inputs.of(rows, columns, carry=carry, same=same)), which)


def ideal_efficiency(devices: int) -> float:
    """Share of the tiles computed that are needed: what scaling costs apart from communication."""
    needed = devices * (devices + 1) / 2
    return needed / (devices * (math.floor(devices / 2) + 1))
