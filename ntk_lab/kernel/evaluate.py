"""From an architecture and data to kernel matrices: checks, compilation, the symmetric half."""

import math
import os
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.kernel.check import check_inputs
from ntk_lab.kernel.graph import Graph
from ntk_lab.kernel.layout import Carry, Full, Need
from ntk_lab.kernel.masked import Masked
from ntk_lab.kernel.native import available
from ntk_lab.kernel.native_evaluate import attention_kernel, position_kernel
from ntk_lab.kernel.native_steps import Filter, Step
from ntk_lab.kernel.native_vectors import FEWEST, vector_kernels
from ntk_lab.kernel.plan import Cost, Plan, count, make_plan
from ntk_lab.kernel.positions import between_examples
from ntk_lab.kernel.result import Kernel
from ntk_lab.kernel.state import Gaussian, Inputs, State, moments
from ntk_lab.kernel.tiles import Progress, tiled

# A symmetric kernel is computed in row panels of its upper triangle: few enough to leave each a
# large fused operation, enough to save nearly half of the work.
_PANELS = 4
_SMALL = 256
# Entries of a kernel of vectors that is computed in one piece without asking what it needs.
_UNPLANNED = 2**24
# Examples on each side of the kernel by which costs are counted.
_COUNTED = 256


class Propagates(Protocol):
    """What evaluation needs of an architecture: a kernel rule, and what the rule needs."""

    def propagate(self, state: State) -> State:
        """The kernel rule of the whole architecture."""
        ...

    def need(self, after: Need) -> Need:
        """What the architecture must be given about positions."""
        ...

    def native_steps(self, shape: tuple[int, ...]) -> tuple[list[Step], int, "Propagates"] | None:
        """The part that compiled loops can compute, and the rest."""
        ...

    def vector_steps(self, shape: tuple[int, ...]) -> list[Step] | None:
        """The architecture over vectors as compiled loops can compute it."""
        ...

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for one example."""
        ...

    def presence(self, mask: jax.Array) -> jax.Array:
        """Factors of the outputs where the mask says which inputs are present."""
        ...

    @property
    def vocabulary_size(self) -> int | None:
        """Number of tokens if inputs are integer tokens."""
        ...

    @property
    def takes_graphs(self) -> bool:
        """Whether inputs may be graphs."""
        ...


def evaluate(
    net: Propagates,
    x1: jax.Array | Graph | Masked,
    x2: jax.Array | Graph | Masked | None = None,
    memory_limit: int | None = None,
    progress: Progress | None = None,
) -> Kernel:
    """Infinite-width kernels of ``net``; see ``ntk_lab.nn.Module.kernel``."""
    x1, x2 = check_inputs(x1, x2, net.vocabulary_size, net.takes_graphs)
    for x in (x1, x2):
        if isinstance(x, Masked) and is_concrete(x.mask):
            # Masks may be known while a function that closes over them is being traced.
            with jax.ensure_compile_time_eval():
                net.presence(x.mask)
    leaves, treedef = jax.tree.flatten(net)
    static = all(isinstance(leaf, int | float) for leaf in leaves)
    if static and is_concrete((x1, x2)):
        found = _evaluate_vectors(net, x1, x2, memory_limit, progress)
        if found is not None and found[1]:
            return found[0]
        kernel = found[0] if found else _evaluate_concrete(net, x1, x2, memory_limit, progress)
    elif static:
        # As static numbers, scales are combined in double precision before they are rounded.
        kernel = _evaluate_static(net, x1, x2)
    else:
        dtype = x1.dtype if jnp.issubdtype(x1.dtype, jnp.floating) else jnp.result_type(float)
        leaves = [jnp.asarray(leaf, dtype) for leaf in leaves]
        kernel = _evaluate_traced(treedef, leaves, x1, x2)
    _check_finite(kernel)
    return kernel


def _evaluate_concrete(net, x1, x2, memory_limit: int | None, progress: Progress | None) -> Kernel:
    """Kernel of data that are known: planned, in tiles, or by loops compiled for the CPU."""
    carry, n2 = carried(net, x1), len(x1 if x2 is None else x2)
    # Planning takes longer than a small kernel of vectors, and does not know edges of graphs.
    small = x1.ndim == 2 and len(x1) * n2 <= _UNPLANNED and memory_limit is None
    if isinstance(x1, Graph) or (small and net.vocabulary_size is None):
        return _evaluate_static(net, x1, x2)
    # Compiled loops know no masks.
    loops = not isinstance(x1, Masked) and available()
    native = net.native_steps(x1.shape[1:]) if loops else None
    found = native and attention_kernel(native, x1, x2, memory_limit, progress)
    if found is None:
        plan = _plan(net, x1.shape, n2, x2 is None, x1.dtype, carry, memory_limit)
        found = native and position_kernel(native, carry, x1, x2, progress)
    if found is not None:
        return found
    if plan.tiles == 1:
        return _evaluate_static(net, x1, x2)
    return tiled(partial(_evaluate_tile, net, carry), plan, x1, x2, progress)


def _evaluate_vectors(
    net, x1, x2, memory_limit: int | None, progress
) -> tuple[Kernel, bool] | None:
    """Kernel of vectors by compiled loops, and whether it is finite; None where there are none."""
    n1, n2 = len(x1), len(x1 if x2 is None else x2)
    if isinstance(x1, Graph | Masked) or net.vocabulary_size is not None or not available():
        return None
    steps = net.vector_steps(x1.shape[1:]) if n1 * n2 >= FEWEST else None
    # Without an activation there are no angles: a product is the kernel.
    if not steps or all(isinstance(step, Filter) for step in steps):
        return None
    make_plan(Cost(1.0, 1.0), None, (n1, n2), x2 is None, 1, x1.dtype.itemsize, memory_limit)
    flat = None if x2 is None else x2.reshape(n2, -1)
    return vector_kernels(steps, x1.reshape(n1, -1), flat, progress)


def plan_kernel(
    net: Propagates,
    shape1: tuple[int, ...],
    shape2: tuple[int, ...] | None = None,
    dtype: Any = None,
    memory_limit: int | None = None,
) -> Plan:
    """Cost of ``net``'s kernel for inputs of these shapes; see ``ntk_lab.nn.Module.plan``."""
    if net.takes_graphs:
        raise InputError("kernels of graphs are computed in one piece, without a plan.")
    usual = float if net.vocabulary_size is None else int
    dtype = np.dtype(jnp.result_type(usual) if dtype is None else dtype)
    carry = carried(net, jax.ShapeDtypeStruct(shape1, dtype))
    n2 = shape1[0] if shape2 is None else shape2[0]
    return _plan(net, shape1, n2, shape2 is None, dtype, carry, memory_limit)


def is_gaussian(net: Propagates, shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether the limit of the outputs is a Gaussian process, for examples of that shape."""
    x, found = jax.ShapeDtypeStruct((1, *shape), dtype), []

    def kind(a: jax.Array, b: jax.Array) -> tuple:
        found.append(isinstance(net.propagate(Inputs(a, b, carry=carried(net, x))), Gaussian))
        return ()

    jax.eval_shape(kind, x, x)
    return found[0]


def _plan(net, shape, n2: int, symmetric: bool, dtype, carry: Carry, limit: int | None) -> Plan:
    positions = len(shape) > 2
    workers = (os.cpu_count() or 1) if jax.default_backend() == "cpu" and positions else 1
    outputs = math.prod(net.output_shape(shape[1:])[:-1]) ** 2
    cost = _cost(net, shape[1:], np.dtype(dtype), carry)
    return make_plan(
        cost,
        carry if positions else None,
        (shape[0], n2),
        symmetric,
        outputs,
        np.dtype(dtype).itemsize,
        limit,
        workers,
    )


@lru_cache(maxsize=64)
def _cost(net, shape: tuple[int, ...], dtype: np.dtype, carry: Carry) -> Cost:
    # Of many examples, so that what each of them needs by itself does not weigh.
    x = jax.ShapeDtypeStruct((_COUNTED, *shape), dtype)
    cost = count(lambda a, b: tile_of(net, Inputs(a, b, carry=carry)), x, x)
    return Cost(cost.largest / _COUNTED**2, cost.total / _COUNTED**2)


def carried(net: Propagates, x: Any) -> Carry:
    """What the architecture needs of the covariance between positions of its input."""
    spatial = len(net.output_shape(x.shape[1:])) > 1
    carry = Carry.FULL if spatial else Carry.DIAGONAL
    return net.need(Need(carry, variances=False, ragged=isinstance(x, Masked))).carry


@compiled(static_argnums=0)
def _evaluate_static(net: Propagates, x1: jax.Array, x2: jax.Array | None) -> Kernel:
    return _evaluate(net, x1, x2)


@compiled(static_argnums=0)
def _evaluate_traced(treedef: Any, leaves: list, x1: jax.Array, x2: jax.Array | None) -> Kernel:
    return _evaluate(jax.tree.unflatten(treedef, leaves), x1, x2)


@compiled(static_argnums=(0, 1))
def _evaluate_tile(net: Propagates, carry: Carry, x1: jax.Array, x2: jax.Array, same: jax.Array):
    return tile_of(net, Inputs.of(x1, x2, carry=carry, same=same))


def _evaluate(net: Propagates, x1: jax.Array, x2: jax.Array | None) -> Kernel:
    carry = carried(net, x1)
    if x2 is not None:
        return tile_of(net, Inputs.of(x1, x2, carry=carry))
    n = len(x1)
    if n <= _SMALL or carry != Carry.DIAGONAL:
        return tile_of(net, Inputs.of(x1, x1, overlap=n, carry=carry))
    edges = [int(e) for e in np.linspace(0, n, _PANELS + 1).round()]
    panels = [
        tile_of(net, Inputs.of(x1[start:stop], x1[start:], overlap=stop - start))
        for start, stop in pairwise(edges)
    ]
    return Kernel(*(_mirror(matrices, edges) for matrices in zip(*panels, strict=True)))


def _mirror(panels: tuple[jax.Array, ...], edges: list[int]) -> jax.Array:
    """Symmetric matrix from row panels that begin on the diagonal."""
    rows = []
    for i, (start, stop) in enumerate(pairwise(edges)):
        left = [p[:, start - e : stop - e].T for p, e in zip(panels[:i], edges[:i], strict=True)]
        rows.append(jnp.concatenate([*left, panels[i]], axis=1))
    return jnp.concatenate(rows, axis=0)


def tile_of(net: Propagates, inputs: Inputs) -> Kernel:
    """Both kernels of some inputs, all at once; for use inside compiled programs."""
    state = moments(net.propagate(inputs))
    if isinstance(state.layout, Full):
        return Kernel(*(between_examples(k, state.layout) for k in (state.cov.cov, state.ntk)))
    return Kernel(state.cov.cov, state.ntk)


@compiled
def _all_finite(kernel: Kernel) -> jax.Array:
    return jnp.isfinite(kernel.nngp).all() & jnp.isfinite(kernel.ntk).all()


def _check_finite(kernel: Kernel) -> None:
    if not is_concrete(kernel) or _all_finite(kernel):
        return
    for name, value in kernel._asdict().items():
        bad = int(jnp.sum(~jnp.isfinite(value)))
        if bad:
            raise NumericalError(
                f"{bad} of {value.size} entries of the {name} are not finite in {value.dtype}: "
                "variances over- or underflow on the way through the layers. Scale the inputs to "
                "order one, choose w_std nearer to criticality (sqrt(2) for Relu), or use float64. "
                "(Tanh also gives NaN for variances too large for its expansion.)"
            )
