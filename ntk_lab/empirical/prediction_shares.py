"""Which part of a network carries the change of its predictions."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.empirical import products
from ntk_lab.empirical.arguments import Arguments, Select, arguments
from ntk_lab.empirical.checks import check_examples, check_finite
from ntk_lab.empirical.ntk import Model, Params
from ntk_lab.empirical.shares import Group
from ntk_lab.empirical.structured.build import build
from ntk_lab.empirical.tiles import default_memory
from ntk_lab.errors import InputError, NumericalError


@dataclass(frozen=True)
class PredictionShares:
    """Parts of a change of predictions; made by :func:`prediction_shares`.

    Attributes
    ----------
    names
        Of the groups, in the order of the parameters.
    parts
        Change of the outputs by each group, ``(groups, n, C)``, in the dtype of the outputs.
    change
        ``f(params, x) - f(params0, x)``, ``(n, C)``.
    rest
        ``change - parts.sum(0)``: what no group explains alone, ``(n, C)``.
    shares
        ``<part, change> / |change|^2`` of each group, ``(groups,)``, float64. A share may be
        negative, where a group works against the change. With ``rest_share`` they add up to one.
    rest_share
        ``<rest, change> / |change|^2``.
    rest_size
        ``|rest| / |change|``: near 0 the parts are the whole; near 1 or above they explain little,
        and the network has left the regime in which it is linear in its parameters.
    points
        Points of the line between the parameters that the Jacobian was averaged over; 0 where it
        is that at the start.
    """

    names: tuple[str, ...]
    parts: np.ndarray
    change: np.ndarray
    rest: np.ndarray
    shares: np.ndarray
    rest_share: float
    rest_size: float
    points: int

    def __str__(self) -> str:
        rest = "quadrature" if self.points else "nonlinear rest"
        width = max(len(rest), *(len(name) for name in self.names))
        lines = [f"{'':<{width}}  {'share':>8}"]
        rows = [*zip(self.names, self.shares, strict=True), (rest, self.rest_share)]
        lines += [f"{name:<{width}}  {share:>8.1%}" for name, share in rows]
        return "\n".join([*lines, f"|rest| / |change| = {self.rest_size:.3g}"])


def prediction_shares(
    f: Model,
    params0: Params,
    params: Params,
    x: Any,
    *,
    group: Group | None = None,
    points: int = 0,
    select: Select | None = None,
    memory: float | None = None,
) -> PredictionShares:
    """What each layer of a network adds to the change of its predictions.

    In the linear regime ``f(params, x) - f(params0, x) = sum_l J_l(params0, x) (params -
    params0)_l + rest``, a part for each group ``l`` of parameters. What is nonlinear in the
    parameters is the rest, which is stated and not shared out.

    With ``points`` the Jacobian is averaged over the straight line between the parameters. These
    parts, ``int_0^1 J_l(params0 + s (params - params0)) ds (params - params0)_l``, add up to the
    whole change, in the nonlinear regime too (integrated gradients, arXiv:1703.01365), but are
    those of the straight line, not of the path that training took.

    Parameters
    ----------
    f, x
        As for :func:`ntk`.
    params0, params
        Parameters before and after, of one structure.
    group
        From the path of a parameter (``"layers/0/w"``) to the name of its group, such as
        :func:`by_layer`; by default each parameter is its own.
    points
        Nodes of Gauss-Legendre quadrature along the line; ``m`` are exact for networks that are
        polynomials of degree ``2 m`` in their parameters. 0: the Jacobian at the start.
    select
        Parameters that count, as for :func:`ntk`; what the others do is part of the rest.
    memory
        Bytes that a product with the Jacobian may use; default a quarter of what is free.

    Returns
    -------
    PredictionShares
        ``print`` shows a table.

    Raises
    ------
    InputError
        Parameters of different structure or shapes, and as for :func:`ntk`.
    NumericalError
        Outputs that are not finite, or that do not change at all.

    Notes
    -----
    A forward derivative a group and point, about two evaluations of ``f`` each; memory for the
    outputs, once a group.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda p, x: p["a"] * p["b"] * x
    >>> start, end = ({"a": jnp.float32(a), "b": jnp.float32(b)} for a, b in [(1, 2), (1.5, 2.2)])
    >>> print(ntk.empirical.prediction_shares(f, start, end, jnp.ones((3, 1))))
                       share
    a                  76.9%
    b                  15.4%
    nonlinear rest      7.7%
    |rest| / |change| = 0.0769
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 0:
        raise InputError(f"points={points!r}; it must be an integer of at least 0.")
    before = arguments(f, params0, x, None, select)
    after = arguments(f, params, x, None, select)
    _check_alike(before, after)
    program = build(f, before.signature(structured=False, merge=True))
    check_examples(program, before)
    net = products.network(before, program, default_memory() if memory is None else memory, None)
    n, outputs = before.sizes[0], before.outputs
    ends = [np.asarray(f(p, x), np.float64).reshape(n, outputs) for p in (params0, params)]
    change = ends[1] - ends[0]
    check_finite(jnp.asarray(change), after)
    if not change.any():
        raise NumericalError("the outputs do not change from params0 to params.")
    names = {i: before.paths[i] if group is None else str(group(before.paths[i]))
             for i in before.selected}  # fmt: skip
    members: dict[str, list[int]] = {}
    for i, name in names.items():
        members.setdefault(name, []).append(i)
    parts = np.stack([_part(net, before, after, which, points) for which in members.values()])
    rest = change - parts.sum(0)
    square = float(np.sum(change**2))
    dtype = np.dtype(before.output_dtype)
    return PredictionShares(
        names=tuple(members),
        parts=parts.astype(dtype),
        change=change.astype(dtype),
        rest=rest.astype(dtype),
        shares=np.einsum("gnc,nc->g", parts, change) / square,
        rest_share=float(np.sum(rest * change)) / square,
        rest_size=float(np.linalg.norm(rest)) / square**0.5,
        points=points,
    )


def _part(net, before: Arguments, after: Arguments, which: list[int], points: int) -> np.ndarray:
    """Change of the outputs along the motion of some parameters, ``(n, C)``."""
    tangents = [
        (after.leaves[i] - before.leaves[i] if i in which else jnp.zeros_like(before.leaves[i]))[
            None
        ]
        for i in before.selected
    ]
    places, weights = _nodes(points)
    total = np.zeros((before.sizes[0], before.outputs))
    for place, weight in zip(places, weights, strict=True):
        found = products.push(_at(net, before, after, place), before.inputs1, tangents)[0]
        total += weight * np.asarray(found, np.float64)
    return total


def _at(net: products.Network, before: Arguments, after: Arguments, place: float) -> Any:
    """The network at a point of the line between the parameters."""
    values = list(net.values)
    for i in before.selected if place else ():
        a, b = before.leaves[i], after.leaves[i]
        values[net.offset + i] = a + jnp.asarray(place, a.dtype) * (b - a)
    return products.Network(values, net.program, net.selected, net.memory, net.batch)


def _nodes(points: int) -> tuple[list[float], list[float]]:
    if not points:
        return [0.0], [1.0]
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return [float(v) for v in (nodes + 1) / 2], [float(w) for w in weights / 2]


def _check_alike(before: Arguments, after: Arguments) -> None:
    trees = jax.tree.structure(before.params), jax.tree.structure(after.params)
    if trees[0] != trees[1]:
        raise InputError(f"params0 is a tree {trees[0]} and params {trees[1]}; expected equal.")
    for path, a, b in zip(before.paths, before.leaves, after.leaves, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise InputError(
                f"{path or 'the parameter'} is {a.dtype}{a.shape} in params0 and "
                f"{b.dtype}{b.shape} in params; expected the same."
            )
