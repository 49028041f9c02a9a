"""From an architecture and data to kernel matrices: checks, compilation, the symmetric half."""

from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.kernel.layout import Carry, Full, Need
from ntk_lab.kernel.positions import between_examples
from ntk_lab.kernel.result import Kernel
from ntk_lab.kernel.state import Inputs, State, moments

# A symmetric kernel is computed in row panels of its upper triangle: few enough to leave each a
# large fused operation, enough to save nearly half of the work.
_PANELS = 4
_SMALL = 256


class Propagates(Protocol):
    """What evaluation needs of an architecture: a kernel rule."""

    def propagate(self, state: State) -> State:
        """The kernel rule of the whole architecture."""
        ...

    def need(self, after: Need) -> Need:
        """What the architecture must be given about positions."""
        ...

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for one example."""
        ...


def evaluate(net: Propagates, x1: jax.Array, x2: jax.Array | None = None) -> Kernel:
    """Infinite-width kernels of ``net``; see ``ntk_lab.nn.Module.kernel``."""
    x1, x2 = check_inputs(x1, x2)
    leaves, treedef = jax.tree.flatten(net)
    if all(isinstance(leaf, int | float) for leaf in leaves):
        # As static numbers, scales are combined in double precision before they are rounded.
        kernel = _evaluate_static(net, x1, x2)
    else:
        leaves = [jnp.asarray(leaf, x1.dtype) for leaf in leaves]
        kernel = _evaluate_traced(treedef, leaves, x1, x2)
    _check_finite(kernel)
    return kernel


def check_inputs(x1: Any, x2: Any = None) -> tuple[jax.Array, jax.Array | None]:
    """Inputs as floating-point arrays of one dtype; errors that explain for anything else."""
    x1, x2 = _check_array("x1", x1), None if x2 is None else _check_array("x2", x2)
    if x2 is not None and x1.shape[1:] != x2.shape[1:]:
        raise InputError(
            f"x1 has examples of shape {x1.shape[1:]} and x2 of {x2.shape[1:]}; they must be "
            "equal. Inputs are (n, *shape), batch first and channels last."
        )
    if x2 is not None and x1.dtype != x2.dtype:
        raise InputError(
            f"x1 is {x1.dtype} and x2 is {x2.dtype}; convert one, e.g. x2.astype(x1.dtype)."
        )
    return x1, x2


def _check_array(name: str, x: Any) -> jax.Array:
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
        if x.dtype == object or not np.issubdtype(x.dtype, np.number):
            raise InputError(
                f"{name} has dtype {x.dtype}; numbers in a rectangular array are needed."
            )
        x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise InputError(f"{name} has dtype {x.dtype}; kernels are defined for real inputs.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.result_type(float))
    if x.dtype not in (jnp.float32, jnp.float64):
        raise InputError(f"{name} is {x.dtype}; kernels are computed in float32 or float64.")
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(
            f"{name} has shape {x.shape}; expected (n, *shape) with at least one example and one "
            "channel. A single example is x[None]; n numbers are n examples as x[:, None]."
        )
    if is_concrete(x) and not _all_finite(x):
        rows = np.flatnonzero(~np.isfinite(np.asarray(x)).reshape(len(x), -1).all(axis=1))
        raise InputError(
            f"{name} has NaN or infinite values in {len(rows)} of {len(x)} examples, the first "
            f"of them number {rows[0]}. Remove or repair these examples first."
        )
    return x


def _all_finite(x: jax.Array) -> bool:
    # Data may be known while a function that closes over them is being traced.
    with jax.ensure_compile_time_eval():
        return bool(jnp.isfinite(x).all())


@partial(jax.jit, static_argnums=0)
def _evaluate_static(net: Propagates, x1: jax.Array, x2: jax.Array | None) -> Kernel:
    return _evaluate(net, x1, x2)


@partial(jax.jit, static_argnums=0)
def _evaluate_traced(treedef: Any, leaves: list, x1: jax.Array, x2: jax.Array | None) -> Kernel:
    return _evaluate(jax.tree.unflatten(treedef, leaves), x1, x2)


def _evaluate(net: Propagates, x1: jax.Array, x2: jax.Array | None) -> Kernel:
    spatial = len(net.output_shape(x1.shape[1:])) > 1
    need = net.need(Need(Carry.FULL if spatial else Carry.DIAGONAL, variances=False))
    if x2 is not None:
        return _tile(net, Inputs(x1, x2, carry=need.carry))
    n = len(x1)
    if n <= _SMALL or need.carry != Carry.DIAGONAL:
        return _tile(net, Inputs(x1, x1, overlap=n, carry=need.carry))
    edges = [int(e) for e in np.linspace(0, n, _PANELS + 1).round()]
    panels = [
        _tile(net, Inputs(x1[start:stop], x1[start:], overlap=stop - start))
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


def _tile(net: Propagates, inputs: Inputs) -> Kernel:
    state = moments(net.propagate(inputs))
    if isinstance(state.layout, Full):
        return Kernel(*(between_examples(k, state.layout) for k in (state.cov.cov, state.ntk)))
    return Kernel(state.cov.cov, state.ntk)


def _check_finite(kernel: Kernel) -> None:
    if not is_concrete(kernel):
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
