"""Where a flat list of operations uses its parameters, and how far each use has a rule."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from ntk_lab.empirical.structured.rules import Rule, rule
from ntk_lab.equations import is_literal

# Views whose entries are distinct entries of the parameter, up to a factor.
_ONE_TO_ONE = {"reshape", "transpose", "squeeze", "rev", "slice", "copy", "neg", "expand_dims"}


@dataclass(frozen=True)
class View:
    """A linear image of one parameter: a transpose, slice, broadcast or multiple of it.

    ``axes`` says along which axis of the parameter each axis runs (None for none), where that is
    known; ``one_to_one`` whether every entry of the parameter occurs at most once.
    """

    leaf: int
    steps: tuple[Any, ...] = ()
    signature: tuple[str, ...] = ()
    axes: tuple[int | None, ...] | None = None
    one_to_one: bool = True
    scale: float = 1.0


@dataclass(frozen=True)
class Use:
    """One operation linear in a view of a parameter; ``place`` is where its probe is added."""

    view: View
    rule: Rule
    equation: Any
    position: int
    place: Any
    factor: float = 1.0


@dataclass
class Uses:
    """All uses of each parameter, and for those without a rule the reason."""

    found: dict[int, list[Use]] = field(default_factory=dict)
    opaque: dict[int, str] = field(default_factory=dict)


def find_uses(jaxpr: Any, leaves: dict[Any, int]) -> Uses:
    """Walk the operations forward; ``leaves`` maps variables to the numbers of parameters."""
    views = {
        var: View(leaf, axes=tuple(range(len(var.aval.shape)))) for var, leaf in leaves.items()
    }
    uses = Uses()
    for equation in jaxpr.eqns:
        held = [
            p for p, atom in enumerate(equation.invars) if not is_literal(atom) and atom in views
        ]
        if not held or not _passes_derivatives(equation):
            continue
        view = _extend(equation, views[equation.invars[held[0]]]) if len(held) == 1 else None
        if view is not None:
            views[equation.outvars[0]] = view
            continue
        for position in held:
            _record(uses, equation, position, views[equation.invars[position]])
    for atom in jaxpr.outvars:
        if not is_literal(atom) and atom in views:
            uses.opaque.setdefault(views[atom].leaf, "is an output itself")
    return uses


def _record(uses: Uses, equation: Any, position: int, view: View) -> None:
    known = rule(equation, position)
    if known is None:
        uses.opaque.setdefault(view.leaf, _reason(equation))
        return
    use = Use(view, known, equation, position, equation.outvars[0])
    uses.found.setdefault(view.leaf, []).append(use)


def _reason(equation: Any) -> str:
    name = equation.primitive.name
    known = {
        "scan": "used inside a scan",
        "while": "used inside a while loop",
        "cond": "used inside a branch",
        "custom_jvp_call": "enters a function with its own derivative rule",
        "custom_vjp_call": "enters a function with its own derivative rule",
        "custom_vjp_call_jaxpr": "enters a function with its own derivative rule",
    }
    return known.get(name, f"no rule for its use by {name}")


def _passes_derivatives(equation: Any) -> bool:
    if equation.primitive.name == "stop_gradient":
        return False
    return any(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in equation.outvars)


def _extend(equation: Any, view: View) -> View | None:
    """The view that an operation makes of a view; None if it is more than that."""
    name, settings = equation.primitive.name, equation.params
    axes, one_to_one, scale = view.axes, view.one_to_one, view.scale
    if name in ("mul", "div"):
        factor = _scaling(equation)
        if factor is None:
            return None
        scale *= factor
    elif name == "convert_element_type":
        if not jnp.issubdtype(settings["new_dtype"], jnp.floating):
            return None
    elif name == "broadcast_in_dim":
        axes, repeated = _broadcast_axes(equation, axes)
        one_to_one = one_to_one and not repeated
    elif name in _ONE_TO_ONE and len(equation.invars) == 1:
        axes = _moved_axes(equation, axes)
    else:
        return None
    settings = {k: v for k, v in settings.items() if k != "sharding"}
    literals = [str(a) for a in equation.invars if is_literal(a)]
    return replace(
        view,
        steps=(*view.steps, equation),
        signature=(*view.signature, f"{name} {sorted(settings.items())} {literals}"),
        axes=axes,
        one_to_one=one_to_one,
        scale=scale,
    )


def _scaling(equation: Any) -> float | None:
    """The constant by which an operation multiplies its other operand."""
    left, right = equation.invars
    if is_literal(right) and np.ndim(right.val) == 0:
        value = float(right.val)
        if equation.primitive.name == "mul":
            return value
        return 1 / value if value else None
    if equation.primitive.name == "mul" and is_literal(left) and np.ndim(left.val) == 0:
        return float(left.val)
    return None


def _broadcast_axes(equation: Any, axes: Any) -> tuple[Any, bool]:
    source = equation.invars[0].aval.shape
    shape, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    repeated = int(np.prod(shape)) != int(np.prod(source))
    if axes is None or len(equation.invars) > 1:
        return None, repeated
    result: list[int | None] = [None] * len(shape)
    for axis, place in enumerate(places):
        result[place] = axes[axis] if source[axis] == shape[place] else None
    return tuple(result), repeated


def _moved_axes(equation: Any, axes: Any) -> Any:
    name, settings = equation.primitive.name, equation.params
    source, target = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    if axes is None or name in ("rev", "slice"):
        return None
    if name == "transpose":
        return tuple(axes[a] for a in settings["permutation"])
    if name == "squeeze":
        return tuple(a for i, a in enumerate(axes) if i not in settings["dimensions"])
    if name == "reshape":
        left = [i for i, n in enumerate(source) if n != 1]
        right = [i for i, n in enumerate(target) if n != 1]
        if [source[i] for i in left] != [target[i] for i in right]:
            return None
        result: list[int | None] = [None] * len(target)
        for i, j in zip(left, right, strict=True):
            result[j] = axes[i]
        return tuple(result)
    return axes


def merge_biases(
    jaxpr: Any, uses: Uses, leaves: Sequence[int]
) -> dict[int, tuple[Use, list[tuple[int, float]]]]:
    """Dense and convolutional uses whose result only gets a bias: one more column of ones.

    Returns, per weight, its use with the probe moved behind the bias, and ``(bias, value)`` of
    the columns. ``y = c (A W) + s b`` has ``D`` in common, and the gradients ``c A^T D`` and
    ``s 1^T D``.
    """
    consumers = _consumers(jaxpr)
    by_equation = {
        id(u.equation): u
        for leaf, found in uses.found.items()
        if len(found) == 1 and leaf not in uses.opaque and leaf in leaves
        for u in found
        if u.rule.kind == "direct"
    }
    merged = {}
    for leaf, found in uses.found.items():
        if leaf not in leaves or leaf in uses.opaque or len(found) != 1:
            continue
        use = found[0]
        if use.rule.kind not in ("dense", "conv") or not use.view.one_to_one:
            continue
        columns = []
        while (step := _sole_consumer(use.place, consumers)) is not None:
            factor = _factor(step)
            bias = by_equation.get(id(step))
            if factor is not None:
                columns = [(b, factor * value) for b, value in columns]
                use = replace(use, factor=use.factor * factor, place=step.outvars[0])
            elif bias is not None and bias.view.leaf != leaf and _is_bias(bias, use):
                subtracted = step.primitive.name == "sub"
                if subtracted and step.invars[0] is not use.place:
                    break
                columns.append((bias.view.leaf, (-1 if subtracted else 1) * bias.view.scale))
                use = replace(use, place=step.outvars[0])
            else:
                break
        if columns:
            merged[leaf] = (use, columns)
    return merged


def _consumers(jaxpr: Any) -> dict[Any, list[Any]]:
    consumers: dict[Any, list[Any]] = {}
    for equation in jaxpr.eqns:
        for atom in equation.invars:
            if not is_literal(atom):
                consumers.setdefault(atom, []).append(equation)
    for atom in jaxpr.outvars:
        if not is_literal(atom):
            consumers.setdefault(atom, []).append(None)
    return consumers


def _sole_consumer(var: Any, consumers: dict[Any, list[Any]]) -> Any:
    found = consumers.get(var, [])
    return found[0] if len(found) == 1 else None


def _factor(equation: Any) -> float | None:
    if equation.primitive.name == "neg":
        return -1.0
    return _scaling(equation) if equation.primitive.name in ("mul", "div") else None


def _is_bias(bias: Use, use: Use) -> bool:
    """Whether it varies along the outputs of the weight, all of them, and nothing else."""
    if bias.equation.primitive.name not in ("add", "sub") or bias.view.axes is None:
        return False
    if use.rule.sizes[0] != 1:
        return False
    shape = use.place.aval.shape
    if bias.equation.outvars[0].aval.shape != shape:
        return False
    seen = bias.equation.invars[bias.position].aval.shape
    varying = {i for i, n in enumerate(seen) if n != 1 and bias.view.axes[i] is not None}
    return varying == {i for i in use.rule.free if shape[i] != 1}
