"""Arguments of the kernels of any function, checked and taken apart."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.structured.build import Signature
from ntk_lab.empirical.structured.factors import Mode
from ntk_lab.errors import InputError

Select = Callable[[str], bool] | Any


@dataclass(frozen=True)
class Arguments:
    """Parameters and batches as lists of arrays; ``inputs2`` is None where it is ``inputs1``."""

    f: Callable[..., Any]
    params: Any
    leaves: list[Any]
    paths: list[str]
    selected: tuple[int, ...]
    x1: Any
    x2: Any
    inputs1: list[Any]
    inputs2: list[Any] | None
    outputs: int
    output_dtype: Any
    dtype: Any

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of examples in each batch."""
        n1 = len(self.inputs1[0])
        return n1, n1 if self.inputs2 is None else len(self.inputs2[0])

    @property
    def concrete(self) -> bool:
        """Whether all values can be looked at."""
        return is_concrete(self.leaves, self.inputs1, self.inputs2)

    def signature(self, structured: bool, merge: bool) -> Signature:
        """What the traced program depends on."""
        return Signature(
            params=jax.tree.structure(self.params),
            leaves=tuple(jax.ShapeDtypeStruct(p.shape, p.dtype) for p in self.leaves),
            x=jax.tree.structure(self.x1),
            inputs=tuple(jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in self.inputs1),
            selected=self.selected,
            structured=structured,
            merge=merge,
            x64=jnp.result_type(float) == jnp.float64,
            precision=str(getattr(jax.config, "jax_default_matmul_precision", None)),
        )


def arguments(f: Any, params: Any, x1: Any, x2: Any, select: Select | None) -> Arguments:
    """Check everything that shapes tell."""
    if not callable(f):
        raise InputError(f"f is {type(f).__name__}; expected a function f(params, x).")
    flat, tree = jax.tree.flatten(params)
    paths, leaves = list(_paths(tree)), [as_array(leaf) for leaf in flat]
    inputs1 = _batch("x1", x1)
    inputs2 = None if x2 is None else _batch("x2", x2)
    if inputs2 is not None:
        _same_examples(x1, x2, inputs1, inputs2)
    selected = _selected(select, params, paths, leaves)
    dtypes = [leaves[i].dtype for i in selected]
    dtype = dtypes[0]
    for other in dtypes[1:]:
        dtype = jnp.promote_types(dtype, other)
    outputs, output_dtype = _outputs(f, params, x1, inputs1)
    return Arguments(
        f, params, leaves, paths, selected, x1, x2, inputs1, inputs2, outputs, output_dtype, dtype
    )


@lru_cache(maxsize=64)
def _paths(tree: Any) -> tuple[str, ...]:
    """Names of the leaves of a tree, such as ``"layers/0/w"``."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(
        jax.tree.unflatten(tree, range(tree.num_leaves))
    )
    return tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in pairs)


def as_array(leaf: Any) -> jax.Array:
    """``jnp.asarray``, which takes its time even for what is one."""
    return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)


def _batch(name: str, x: Any) -> list[Any]:
    leaves = [as_array(leaf) for leaf in jax.tree.leaves(x)]
    shapes = [leaf.shape for leaf in leaves]
    if not leaves or any(not s for s in shapes) or len({s[0] for s in shapes}) != 1:
        raise InputError(
            f"{name} has arrays of shapes {', '.join(map(str, shapes)) or '(none)'}; expected "
            "batches (n, *shape), all with the same number of examples n."
        )
    return leaves


def _same_examples(x1: Any, x2: Any, inputs1: Sequence[Any], inputs2: Sequence[Any]) -> None:
    trees = jax.tree.structure(x1), jax.tree.structure(x2)
    if trees[0] != trees[1]:
        raise InputError(f"x1 is a tree {trees[0]} and x2 {trees[1]}; they must be equal.")
    for a, b in zip(inputs1, inputs2, strict=True):
        if a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
            raise InputError(
                f"x1 has examples of shape {a.shape[1:]} and dtype {a.dtype}, and x2 of "
                f"{b.shape[1:]} and {b.dtype}; they must be equal."
            )


def _selected(select: Any, params: Any, paths: list[str], leaves: list[Any]) -> tuple[int, ...]:
    if select is None:
        wanted = [True] * len(leaves)
    elif callable(select):
        wanted = [bool(select(path)) for path in paths]
    else:
        try:
            wanted = jax.tree.leaves(
                jax.tree.map(lambda s, sub: jax.tree.map(lambda _: s, sub), select, params)
            )
        except ValueError as error:
            raise InputError(
                f"select is a tree {jax.tree.structure(select)} that is no prefix of the "
                f"parameters, {jax.tree.structure(params)}: {error}"
            ) from None
        if any(not isinstance(s, (bool, np.bool_)) for s in wanted):
            raise InputError("select must hold True and False only, or be a function of the path.")
    floats = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    chosen = tuple(i for i, (w, f) in enumerate(zip(wanted, floats, strict=True)) if w and f)
    if not chosen:
        raise InputError(
            "no floating-point parameter to differentiate by: there are "
            f"{', '.join(f'{p} ({v.dtype})' for p, v in zip(paths, leaves, strict=True)) or 'none'}"
            f"{'' if select is None else ', of which select leaves none'}."
        )
    return chosen


def result_of(f: Any, params: Any, x: Any) -> Any:
    """Shape and dtype of ``f(params, x)``, traced once for all values of a shape."""
    flat, tree = jax.tree.flatten((params, x))
    avals = tuple(jax.typeof(as_array(leaf)) for leaf in flat)
    try:
        hash((f, avals))
    except TypeError:
        return jax.eval_shape(f, params, x)
    return _result(f, tree, avals, str(jnp.result_type(float)))


@lru_cache(maxsize=64)
def _result(f: Any, tree: Any, avals: tuple[Any, ...], precision: str) -> Any:
    return jax.eval_shape(f, *jax.tree.unflatten(tree, avals))


def _outputs(f: Any, params: Any, x1: Any, inputs1: Sequence[Any]) -> tuple[int, Any]:
    """Number of outputs of one example, and their dtype."""
    n = len(inputs1[0])
    result = result_of(f, params, x1)
    if not hasattr(result, "shape"):
        raise InputError(
            f"f(params, x) returns {type(result).__name__}; expected one array. Choose or "
            "concatenate outputs, e.g. lambda p, x: f(p, x)[0]."
        )
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise InputError(
            f"f(params, x) has outputs of dtype {result.dtype}, which have no derivative; "
            "expected floating point. Return logits rather than classes, real and imaginary parts "
            "rather than complex numbers."
        )
    if not result.shape or result.shape[0] != n:
        raise InputError(
            f"f(params, x) maps a batch of {n} examples to outputs of shape {result.shape}; "
            "expected one row an example. Wrap it, e.g. lambda p, x: f(p, x)[:, None]."
        )
    return math.prod(result.shape[1:]), result.dtype


def cotangents(outputs: Any, args: Arguments) -> tuple[Mode, jax.Array, bool]:
    """Mode, cotangents ``(k, C)``, and whether the result has no axes of outputs."""
    count, dtype = args.outputs, args.output_dtype
    if isinstance(outputs, str):
        if outputs not in ("full", "trace", "diagonal"):
            raise InputError(
                f"outputs={outputs!r}; choose 'full', 'trace' or 'diagonal', or give an array "
                f"({count}, k) that the outputs are multiplied by."
            )
        return outputs, _identity(count, str(dtype)), False
    projection = jnp.asarray(outputs)
    if projection.ndim not in (1, 2) or len(projection) != count:
        raise InputError(
            f"outputs is an array of shape {projection.shape}; expected ({count}, k) or "
            f"({count},) for {count} outputs an example."
        )
    vector = projection.ndim == 1
    projection = projection[:, None] if vector else projection
    return "full", projection.T.astype(dtype), vector


def _identity(count: int, dtype: str) -> jax.Array:
    with jax.ensure_compile_time_eval():  # kept for later calls, so never a traced value
        return _cached_identity(count, dtype)


@lru_cache(maxsize=16)
def _cached_identity(count: int, dtype: str) -> jax.Array:
    return jnp.asarray(np.eye(count, dtype=dtype))


def check_method(method: str) -> None:
    """Refuse unknown methods."""
    if method not in ("auto", "jacobian", "vector-products", "structured"):
        raise InputError(
            f"method={method!r}; choose 'auto', 'jacobian', 'vector-products' or 'structured'."
        )
