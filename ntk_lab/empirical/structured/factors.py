"""What a parameter contributes: per-example gradients, or the factors they are products of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ntk_lab.turned import gram_product

Mode = Literal["full", "trace", "diagonal"]
_PRECISION = jax.lax.Precision.HIGHEST
# Gradients are formed and multiplied slab by slab, some of the outputs of a layer at a time: up to
# four slabs that stay in the cache of a CPU, and more for the sake of memory. Each is two products
# of the compiled program.
_CACHED, _FASTEST = 2**23, 4
_LARGEST, SLABS = 2**24, 16


@partial(jax.tree_util.register_dataclass, data_fields=["gradient"], meta_fields=["form"])
@dataclass(frozen=True)
class Rows:
    """Per-example gradients ``(n, C, P)``."""

    gradient: jax.Array
    form: str = "rows"


@partial(jax.tree_util.register_dataclass, data_fields=["a", "d"], meta_fields=["form"])
@dataclass(frozen=True)
class Outer:
    """Gradients ``sum_t a[b, t, i] d[b, t, o]``.

    ``a`` has the shape ``(n, B, T, I)``, ``d`` ``(n, C, B, T, O)``.
    ``form`` is ``"rows"`` to form them, ``"gram"`` to multiply Gram matrices, ``"mixed"`` to
    multiply that of the inputs with the cotangents.
    """

    a: jax.Array
    d: jax.Array
    form: str


@partial(jax.tree_util.register_dataclass, data_fields=["ids", "d"], meta_fields=["form", "size"])
@dataclass(frozen=True)
class Tokens:
    """The same where ``a`` is one-hot: indices ``(n, T)`` below ``size``."""

    ids: jax.Array
    d: jax.Array
    form: str
    size: int


@partial(jax.tree_util.register_dataclass, data_fields=["a", "e", "b"], meta_fields=["form"])
@dataclass(frozen=True)
class Channels:
    """Gradients ``b[c, o] sum_t e[t, o] a[t, i]``, of channels that reach a readout one by one.

    ``a`` has the shape ``(n, T, I)``, ``e`` ``(n, T, O)``, ``b`` ``(n, C, O)``. Once formed, ``a``
    is the sum over positions, ``(n, O, I)``, and ``e`` None.
    """

    a: jax.Array
    e: Any
    b: jax.Array
    form: str = "readout"


Factor = Rows | Outer | Tokens | Channels


def slabs(factor: Factor, examples: int) -> list[Factor]:
    """Factors of some outputs of the layer each, whose kernels add up to that of the whole.

    Where gradients are formed: a slab of them is less memory, and does not leave the cache between
    the products that form it and that use it. ``examples`` are those of the larger side: both must
    be cut alike.
    """
    if isinstance(factor, Channels):
        return _slabs_of_channels(factor, examples)
    if isinstance(factor, Rows) or factor.form != "rows":
        return [factor]
    _, c, b, _, o = factor.d.shape
    inputs = factor.size if isinstance(factor, Tokens) else factor.a.shape[3]
    width = _width(o, examples * c * b * inputs * factor.d.dtype.itemsize)
    return [replace(factor, d=factor.d[..., k : k + width]) for k in range(0, o, width)]


def _slabs_of_channels(factor: Channels, examples: int) -> list[Factor]:
    if factor.e is None:
        return [factor]
    o, inputs = factor.e.shape[2], factor.a.shape[2]
    width = _width(o, examples * inputs * factor.a.dtype.itemsize)
    return [
        Channels(factor.a, factor.e[..., k : k + width], factor.b[..., k : k + width])
        for k in range(0, o, width)
    ]


def _width(o: int, each: int) -> int:
    """Outputs of a slab; the gradients of one take ``each`` bytes."""
    size = o * each
    count = max(1, min(_FASTEST, -(-size // _CACHED)), -(-size // _LARGEST))
    return -(-o // min(o, SLABS, count))


def formed(factor: Factor) -> Factor:
    """With gradients formed, if that is its form: once, where it is used several times."""
    if isinstance(factor, Channels):
        return factor if factor.e is None else Channels(_by_channel(factor), None, factor.b)
    return Rows(rows(factor)) if factor.form == "rows" else factor


def contract(left: Factor, right: Factor, mode: Mode, upper: bool = False) -> jax.Array:
    """Kernel of two sets of examples: ``(n1, C, n2, C)``, or ``(n1, n2[, C])``.

    ``upper`` says that both are the same, so that a half is enough.
    """
    if left.form == "mixed" and isinstance(left, Outer) and isinstance(right, Outer):
        return _mixed(left, right, upper)
    if isinstance(left, Channels) and isinstance(right, Channels):
        return _channels(left, right, mode)
    if isinstance(left, Rows) or isinstance(right, Rows) or left.form == "rows":
        return _product(rows(left), rows(right), mode)
    if isinstance(left, Tokens) and isinstance(right, Tokens):
        same = (left.ids[:, :, None, None] == right.ids[None, None]).astype(left.d.dtype)
        return _gram(same, left.d[:, :, 0], right.d[:, :, 0], mode)
    if not isinstance(left, Outer) or not isinstance(right, Outer):
        raise TypeError(f"{type(left).__name__} against {type(right).__name__}")
    count = left.a.shape[1]
    parts = [
        _gram(
            _similarity(left.a[:, b], right.a[:, b]),
            left.d[:, :, b],
            right.d[:, :, b],
            mode,
        )
        for b in range(count)
    ]
    return sum(parts[1:], start=parts[0])


def rows(factor: Factor) -> jax.Array:
    """Per-example gradients ``(n, C, P)`` of any factor."""
    if isinstance(factor, Rows):
        return factor.gradient
    if isinstance(factor, Channels):
        gradients = (
            factor.b[..., None]
            * (_by_channel(factor) if factor.e is not None else factor.a)[:, None]
        )
        return gradients.reshape(*gradients.shape[:2], -1)
    if isinstance(factor, Tokens):
        n, c, _, t, o = factor.d.shape
        if factor.size <= 8 * t:  # scattering takes longer than a product that small
            hot = jax.nn.one_hot(factor.ids, factor.size, dtype=factor.d.dtype)
            return rows(Outer(hot[:, None], factor.d, "rows"))
        zeros = jnp.zeros((factor.size, c, o), factor.d.dtype)
        one = lambda ids, d: zeros.at[ids].add(d.transpose(1, 0, 2), mode="drop")  # noqa: E731
        full = jax.vmap(one)(factor.ids, factor.d[:, :, 0])
        return full.transpose(0, 2, 1, 3).reshape(n, c, -1)
    n, c, b, _, o = factor.d.shape
    if b == 1:
        a, d = factor.a[:, 0], factor.d[:, :, 0]
        product = jax.lax.dot_general(d, a, (((2,), (1,)), ((0,), (0,))), precision=_PRECISION)
        return product.reshape(n, c, -1)
    product = jnp.einsum("nbti,ncbto->ncboi", factor.a, factor.d, precision=_PRECISION)
    return product.reshape(n, c, -1)


def join(factors: Sequence[Factor]) -> Factor:
    """One factor for several uses of one parameter: more positions."""
    tokens = [f for f in factors if isinstance(f, Tokens)]
    if tokens:
        ids = jnp.concatenate([f.ids for f in tokens], axis=1)
        d = jnp.concatenate([f.d for f in tokens], axis=3)
        return Tokens(ids, d, tokens[0].form, tokens[0].size)
    outer = [f for f in factors if isinstance(f, Outer)]
    a = jnp.concatenate([f.a for f in outer], axis=2)
    return Outer(a, jnp.concatenate([f.d for f in outer], axis=3), outer[0].form)


def take(factor: Factor, start: int, stop: int) -> Factor:
    """The factor of some of the examples."""
    return jax.tree.map(lambda leaf: leaf[start:stop], factor)


def _similarity(a1: jax.Array, a2: jax.Array) -> jax.Array:
    """Inner products of inputs at all pairs of positions, ``(n1, T, n2, T)``."""
    (n1, t, i), n2 = a1.shape, a2.shape[0]
    product = jnp.matmul(a1.reshape(-1, i), a2.reshape(-1, i).T, precision=_PRECISION)
    return product.reshape(n1, t, n2, t)


def _gram(similar: jax.Array, d1: jax.Array, d2: jax.Array, mode: Mode) -> jax.Array:
    """Sum over pairs of positions of similarities of inputs times those of cotangents."""
    (n1, c, t, o), n2 = d1.shape, d2.shape[0]
    if t == 1:
        kernel = _product(d1[:, :, 0], d2[:, :, 0], mode)
        similar = similar[:, 0, :, 0]
        if mode == "full":
            return kernel * similar[:, None, :, None]
        return kernel * (similar if mode == "trace" else similar[:, :, None])
    if mode == "trace":
        left, right = (d.transpose(0, 2, 1, 3).reshape(-1, c * o) for d in (d1, d2))
        product = jnp.matmul(left, right.T, precision=_PRECISION).reshape(n1, t, n2, t)
        return (product * similar).sum((1, 3)) / c
    if mode == "diagonal":
        left, right = (d.transpose(1, 0, 2, 3).reshape(c, -1, o) for d in (d1, d2))
        product = jnp.matmul(left, right.transpose(0, 2, 1), precision=_PRECISION)
        product = product.reshape(c, n1, t, n2, t) * similar[None]
        return product.sum((2, 4)).transpose(1, 2, 0)
    product = jnp.matmul(d1.reshape(-1, o), d2.reshape(-1, o).T, precision=_PRECISION)
    product = product.reshape(n1, c, t, n2, -1, t) * similar[:, None, :, :, None, :]
    return product.sum((2, 5))


def _by_channel(factor: Channels) -> jax.Array:
    """Sums over positions, ``(n, O, I)``."""
    axes = (((1,), (1,)), ((0,), (0,)))
    return jax.lax.dot_general(factor.e, factor.a, axes, precision=_PRECISION)


def _channels(left: Channels, right: Channels, mode: Mode) -> jax.Array:
    """``sum_o (b1[c, o] b2[e, o]) (g1[o] . g2[o])``, in the modes full and trace."""
    g1, g2 = (f.a if f.e is None else _by_channel(f) for f in (left, right))
    dot = partial(jax.lax.dot_general, precision=_PRECISION)
    similar = dot(g1, g2, (((2,), (2,)), ((1,), (1,))))  # (O, n1, n2)
    if mode == "trace":
        weights = dot(left.b, right.b, (((1,), (1,)), ((2,), (2,))))
        return (similar * weights).sum(0) / left.b.shape[1]
    if mode == "diagonal":
        raise ValueError("the diagonal is not computed channel by channel")
    weighted = similar.transpose(2, 1, 0)[:, :, None] * left.b[None]  # (n2, n1, C, O)
    kernel = dot(weighted, right.b, (((3,), (2,)), ((0,), (0,))))
    return kernel.transpose(1, 2, 0, 3)


def _mixed(left: Outer, right: Outer, upper: bool) -> jax.Array:
    """Similarities of inputs times the cotangents of one right example, then of all left ones.

    ``sum_(t, s) d1[a, t] . (a1[t] . a2[s]) d2[b, s]``, the sum over ``s`` first. Unrolled over the
    right examples: in this order of axes nothing has to be transposed but their cotangents.
    """
    n1, c, _, t, o = left.d.shape
    n2, c2 = right.d.shape[:2]
    similar = _similarity(left.a[:, 0], right.a[:, 0])
    flat = left.d.reshape(n1, c, t * o)
    columns = []
    for j in range(n2):
        used = min(j + 1, n1) if upper else n1
        cotangents = right.d[j, :, 0].transpose(1, 2, 0).reshape(t, o * c2)
        weighted = similar[:used, :, j].reshape(used * t, t)
        weighted = jnp.matmul(weighted, cotangents, precision=_PRECISION)
        column = jnp.matmul(flat[:used], weighted.reshape(used, t * o, c2), precision=_PRECISION)
        if used < n1:
            column = jnp.concatenate([column, jnp.zeros((n1 - used, c, c2), column.dtype)])
        columns.append(column)
    kernel = jnp.stack(columns, axis=2)
    if not upper:
        return kernel
    below = jnp.arange(n1)[:, None] > jnp.arange(n1)[None]
    return jnp.where(below[:, None, :, None], kernel.transpose(2, 3, 0, 1), kernel)


def _product(g1: jax.Array, g2: jax.Array, mode: Mode) -> jax.Array:
    """Inner products of rows ``(n, C, P)``, each mode by one matrix product."""
    (n1, c, p), n2 = g1.shape, g2.shape[0]
    if mode == "full":
        # Contracting four axes by einsum is many times slower on CPU.
        product = gram_product(g1.reshape(-1, p), g2.reshape(-1, p), _PRECISION)
        return product.reshape(n1, c, n2, g2.shape[1])
    if mode == "trace":
        left, right = g1.reshape(n1, -1), g2.reshape(n2, -1)
        return jnp.matmul(left, right.T, precision=_PRECISION) / c
    left, right = g1.transpose(1, 0, 2), g2.transpose(1, 2, 0)
    return jnp.matmul(left, right, precision=_PRECISION).transpose(1, 2, 0)


def finish(kernel: Any, mode: Mode) -> jax.Array:
    """From the layout of `contract` to ``(n1, n2, C, C)``."""
    return kernel.transpose(0, 2, 1, 3) if mode == "full" else kernel
