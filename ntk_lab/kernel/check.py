"""Checks of the inputs of kernels: errors that explain."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.errors import InputError
from ntk_lab.kernel.graph import Graph
from ntk_lab.kernel.masked import Masked, check_masked
from ntk_lab.kernel.tokens import check_tokens


def check_inputs(
    x1: Any, x2: Any = None, vocabulary: int | None = None, graphs: bool = False
) -> tuple[Any, Any]:
    """Inputs as floating-point arrays of one dtype; errors that explain for anything else.

    With a ``vocabulary``, they are integers below it; with ``graphs``, they may be graphs. If one
    of them has a mask, both come back with one.
    """
    if isinstance(x1, Masked) or isinstance(x2, Masked):
        return _check_masked(x1, x2, vocabulary)
    if isinstance(x1, Graph) or isinstance(x2, Graph):
        return _check_graphs(x1, x2, graphs)
    if vocabulary is not None:
        x1 = check_tokens(x1, vocabulary)
        x2 = None if x2 is None else check_tokens(x2, vocabulary)
    else:
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


def _check_graphs(x1: Any, x2: Any, expected: bool) -> tuple[Graph, Graph | None]:
    if not expected or not isinstance(x1, Graph) or not isinstance(x2, Graph | None):
        raise InputError(
            "an input is an ntk.nn.Graph, which needs a layer that uses its edges, such as "
            "ntk.nn.Aggregate(), and both inputs to be graphs."
        )
    graphs = [x1] if x2 is None else [x1, x2]
    nodes = check_inputs(x1.nodes, None if x2 is None else x2.nodes)
    checked = []
    for x, graph in zip(nodes, graphs, strict=False):
        pattern = _check_array("pattern", graph.pattern)
        if len(pattern) != len(x):
            raise InputError(f"there are {len(x)} graphs, but patterns of {len(pattern)}.")
        checked.append(Graph(x, pattern.astype(x.dtype)))
    return checked[0], None if x2 is None else checked[1]


def _check_masked(x1: Any, x2: Any, vocabulary: int | None) -> tuple[Masked, Masked | None]:
    """Both batches with masks, and with zeros at absent positions."""
    tokens = vocabulary is not None
    first, second = check_masked(x1, tokens), None if x2 is None else check_masked(x2, tokens)
    x1, x2 = check_inputs(first.zeroed(), None if second is None else second.zeroed(), vocabulary)
    return Masked(x1, first.mask), None if second is None else Masked(x2, second.mask)


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
        return bool(_finite(x))


@compiled
def _finite(x: jax.Array) -> jax.Array:
    """One pass; apart, two operations take two and an array between them."""
    return jnp.isfinite(x).all()
