"""Operations that are linear in a parameter: inputs ``A``, cotangents ``D`` and the gradient.

Each rule describes one use of a parameter (or of a view of it) in one operation, for one example
and one cotangent. The gradient of that use is a sum of outer products over positions,
``sum_t A[b, t, i] D[b, t, o]``, with ``b`` along axes that the weight shares with its input (one
weight a head, or a group of channels), ``t`` along axes over which the weight is shared, or it is
an elementwise function of ``A`` and ``D``.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@dataclass(frozen=True)
class Rule:
    """One use of a parameter in an operation.

    Attributes
    ----------
    kind
        ``"dense"``, ``"conv"``, ``"tokens"`` or ``"direct"``.
    operand
        Index of the operand that the gradient needs beside ``D``; None if it needs none.
    inputs, cotangents
        From the operand to ``A`` of shape ``(B, T, I)``, and from the cotangent of the output to
        ``D`` of shape ``(B, T, O)``. For tokens, ``A`` holds indices, shape ``(T,)``.
    gradient
        From the sums of outer products ``(B, O, I)`` to the gradient of what was used; for direct
        uses, from operand and cotangent.
    sizes
        ``(B, T, I, O)``.
    free
        Axes of the output along which ``O`` runs.
    """

    kind: str
    operand: int | None
    gradient: Callable[..., Any]
    inputs: Callable[[Any], Any] = lambda value: value
    cotangents: Callable[[Any], Any] = lambda value: value
    sizes: tuple[int, int, int, int] = (1, 1, 1, 1)
    free: tuple[int, ...] = ()
    layout: tuple[Any, ...] = ()


def rule(equation: Any, position: int) -> Rule | None:
    """The rule for a parameter at one position among the operands; None if there is none."""
    find = _RULES.get(equation.primitive.name)
    return None if find is None else find(equation, position)


def _rest(rank: int, *taken: Any) -> list[int]:
    used = {axis for axes in taken for axis in axes}
    return [axis for axis in range(rank) if axis not in used]


def _dense(equation: Any, position: int) -> Rule | None:
    contracted, batch = equation.params["dimension_numbers"]
    other = 1 - position
    w, x = (equation.invars[p].aval.shape for p in (position, other))
    wc, xc, wb, xb = contracted[position], contracted[other], batch[position], batch[other]
    wf, xf = _rest(len(w), wc, wb), _rest(len(x), xc, xb)
    size = lambda shape, axes: math.prod(shape[a] for a in axes)  # noqa: E731
    b, t, i, o = size(w, wb), size(x, xf), size(w, wc), size(w, wf)
    places = list(range(len(wb) + len(xf) + len(wf)))
    first = places[len(wb) :]
    ours, theirs = (
        (first[: len(wf)], first[len(wf) :])
        if position == 0
        else (first[len(xf) :], first[: len(xf)])
    )
    order = [*wb, *wf, *wc]
    shape = [w[a] for a in order]

    def gradient(product):
        return product.reshape(shape).transpose(np.argsort(order))

    return Rule(
        kind="dense",
        operand=other,
        gradient=gradient,
        inputs=lambda v: v.transpose([*xb, *xf, *xc]).reshape(b, t, i),
        cotangents=lambda d: d.transpose([*places[: len(wb)], *theirs, *ours]).reshape(b, t, o),
        sizes=(b, t, i, o),
        free=tuple(ours),
        layout=(tuple(wb), tuple(wf), tuple(wc)),
    )


def _conv(equation: Any, position: int) -> Rule | None:
    p = equation.params
    if position != 1 or p["batch_group_count"] != 1:
        return None
    lhs_spec, rhs_spec, out_spec = p["dimension_numbers"]
    w, y = (v.aval.shape for v in (equation.invars[1], equation.outvars[0]))
    groups = p["feature_group_count"]
    window = [w[a] for a in rhs_spec[2:]]
    t = math.prod(y) // y[out_spec[1]]
    channels, o = w[rhs_spec[1]], w[rhs_spec[0]] // groups
    i = channels * math.prod(window)

    def inputs(value):
        value = value.transpose([lhs_spec[0], *lhs_spec[2:], lhs_spec[1]])
        patches = _patches(value, window, [y[a] for a in out_spec[2:]], p)
        patches = patches.reshape(t, -1, groups, channels)
        return patches.transpose(2, 0, 1, 3).reshape(groups, t, i)

    def cotangents(d):
        d = d.transpose([out_spec[0], *out_spec[2:], out_spec[1]])
        return d.reshape(t, groups, o).transpose(1, 0, 2)

    def gradient(product):
        # (group, out, window, in) to the order of the weight
        full = product.reshape(groups * o, *window, channels)
        order = [rhs_spec[0], *rhs_spec[2:], rhs_spec[1]]
        return full.transpose(np.argsort(order))

    return Rule(
        kind="conv",
        operand=0,
        gradient=gradient,
        inputs=inputs,
        cotangents=cotangents,
        sizes=(groups, t, i, o),
        free=(out_spec[1],),
        layout=(rhs_spec, groups),
    )


def _patches(value: Any, window: list[int], out: list[int], params: Any) -> Any:
    """Shifted copies of ``(n, *space, channels)``: ``(n, *out, offsets, channels)``."""
    dilation = params["lhs_dilation"]
    zero = jnp.zeros((), value.dtype)
    config = [(lo, hi, d - 1) for (lo, hi), d in zip(params["padding"], dilation, strict=True)]
    value = lax.pad(value, zero, [(0, 0, 0), *config, (0, 0, 0)])
    strides, spread = params["window_strides"], params["rhs_dilation"]
    copies = []
    for offset in np.ndindex(*window):
        start = [o * s for o, s in zip(offset, spread, strict=True)]
        stop = [a + (n - 1) * s + 1 for a, n, s in zip(start, out, strides, strict=True)]
        copies.append(
            lax.slice(
                value,
                [0, *start, 0],
                [value.shape[0], *stop, value.shape[-1]],
                [1, *strides, 1],
            )
        )
    return jnp.stack(copies, axis=-2)


def _tokens(equation: Any, position: int) -> Rule | None:
    p, (w, ids) = equation.params, (v.aval for v in equation.invars)
    numbers = p["dimension_numbers"]
    clipped = "CLIP" in str(p["mode"]).upper()
    collapsed = len(numbers.collapsed_slice_dims)
    rank = len(equation.outvars[0].aval.shape)
    offsets = tuple(range(rank - len(w.shape) + collapsed, rank))
    # A row may be looked up with an axis of length one kept, and, as `vmap` of `table[i]` does,
    # by further indices into axes that are taken whole: clipped, these are zero.
    plain = (
        position == 0
        and numbers.collapsed_slice_dims in ((), (0,))
        and (numbers.start_index_map == (0,) or (clipped and 0 in numbers.start_index_map))
        and not numbers.operand_batching_dims
        and numbers.offset_dims == offsets
        and tuple(p["slice_sizes"]) == (1, *w.shape[1:])
    )
    if not plain or w.shape[0] == 0:
        return None
    vocabulary, t, o = w.shape[0], math.prod(ids.shape[:-1]), math.prod(w.shape[1:])
    row = numbers.start_index_map.index(0)

    def inputs(value):
        value = value[..., row].reshape(t)
        return jnp.clip(value, 0, vocabulary - 1) if clipped else value

    def gradient(value, d):
        return jnp.zeros((vocabulary, o), d.dtype).at[value].add(d[0], mode="drop").reshape(w.shape)

    return Rule(
        kind="tokens",
        operand=1,
        gradient=gradient,
        inputs=inputs,
        cotangents=lambda d: d.reshape(1, t, o),
        sizes=(1, t, vocabulary, o),
        free=offsets,
        layout=("tokens",),
    )


def _add(equation: Any, position: int) -> Rule | None:
    return _direct(equation, position, None, lambda d: d)


def _sub(equation: Any, position: int) -> Rule | None:
    return _direct(equation, position, None, (lambda d: d) if position == 0 else (lambda d: -d))


def _mul(equation: Any, position: int) -> Rule | None:
    return _direct(equation, position, 1 - position, lambda value, d: value * d)


def _div(equation: Any, position: int) -> Rule | None:
    if position == 1:
        return None
    return _direct(equation, position, 1, lambda value, d: d / value)


def _direct(
    equation: Any, position: int, operand: int | None, gradient: Callable[..., Any]
) -> Rule | None:
    shape, out = equation.invars[position].aval.shape, equation.outvars[0].aval.shape
    if shape and len(shape) != len(out):
        return None
    # Elementwise operations repeat scalars and axes of length one.
    repeated = [a for a in range(len(out)) if not shape or shape[a] != out[a]]

    def summed(*values):
        full = gradient(*values)
        return _summed(full, repeated, keepdims=bool(shape)) if repeated else full

    return Rule(kind="direct", operand=operand, gradient=summed)


def _summed(value: Any, axes: Sequence[int], keepdims: bool) -> Any:
    """The sum over some axes; over one long axis, by slices first.

    Sums of slices fuse with what is summed. A plain sum has XLA on CPU write all of that first,
    and was six times slower for gradients of the scales of LayerNorm.
    """
    long = [a for a in axes if value.shape[a] > 1]
    axis = max(axes, key=lambda a: value.shape[a])
    size = value.shape[axis]
    count = next(k for k in (8, 7, 6, 5, 4, 3, 2, 1) if size % k == 0)
    if len(long) == 1 and 1 < count < size:
        step = size // count
        parts = [lax.slice_in_dim(value, k, k + step, axis=axis) for k in range(0, size, step)]
        value = functools.reduce(jnp.add, parts)
    return value.sum(axes, keepdims=keepdims)


_RULES: dict[str, Callable[[Any, int], Rule | None]] = {
    "dot_general": _dense,
    "conv_general_dilated": _conv,
    "gather": _tokens,
    "add": _add,
    "add_any": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
}


def zeros_like(aval: Any) -> jax.Array:
    """A probe: zeros to be added to the result of an operation."""
    return jnp.zeros(aval.shape, aval.dtype)
