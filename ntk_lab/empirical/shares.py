"""Which part of a network carries its kernel: shares of parameters, layers and single neurons."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from ntk_lab.empirical.arguments import Arguments, Select, arguments, cotangents
from ntk_lab.empirical.checks import check_examples, check_finite
from ntk_lab.empirical.ntk import Model, Params, Progress
from ntk_lab.empirical.squared_gradients import directional, squared
from ntk_lab.empirical.structured.build import build
from ntk_lab.errors import InputError, NumericalError

Group = Callable[[str], str]


@dataclass(frozen=True)
class Shares:
    """Shares of the empirical NTK, which add up to one; made by :func:`kernel_shares`.

    Attributes
    ----------
    names
        Of the groups, in the order of the parameters.
    trace
        Share of each group in the trace of the kernel, ``(groups,)``, float64.
    target
        Share of each in ``y^T Theta y``, ``(groups,)``, float64; None without targets.
    total_trace, total_target
        What these are shares of: ``sum_i Theta_ii``, of the mean over outputs, and ``y^T Theta y``.
    parameters
        Number of numbers in each group, ``(groups,)``: a share is large or small beside
        ``parameters / parameters.sum()``.
    trace_of, target_of
        From the path of each parameter to the part of each of its numbers in the totals, arrays
        of the shape of the parameter.
    """

    names: tuple[str, ...]
    trace: np.ndarray
    target: np.ndarray | None
    total_trace: float
    total_target: float | None
    parameters: np.ndarray
    trace_of: dict[str, np.ndarray]
    target_of: dict[str, np.ndarray] | None

    def units(
        self, paths: str | Mapping[str, int], axis: int = -1
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Shares of the units of a layer: its neurons, channels, ...

        Parameters
        ----------
        paths
            A parameter, or a mapping from parameters to their axes of units, whose shares are
            added unit by unit, such as ``{"layers/0/w": 1, "layers/0/b": 0}``.
        axis
            Of units, for a single path: the last for weights ``(inputs, outputs)`` of this library
            and of flax, the first for those of equinox, ``(outputs, inputs)``. The other axis of a
            weight has a neuron's outgoing in place of its incoming weights.

        Returns
        -------
        tuple of numpy.ndarray
            Shares in the trace of the whole kernel and in ``y^T Theta y`` (or None), ``(units,)``.
            They add up to those of the parameters.

        Raises
        ------
        InputError
            A path that is not there, an axis out of range, parameters of different numbers of
            units.
        """
        axes = {paths: axis} if isinstance(paths, str) else dict(paths)
        trace = _over_units(self.trace_of, axes) / self.total_trace
        if self.target_of is None or not self.total_target:
            return trace, None
        return trace, _over_units(self.target_of, axes) / self.total_target

    def __str__(self) -> str:
        width = max(9, *(len(name) for name in self.names))
        head = f"{'':<{width}}  {'parameters':>12}  {'trace':>7}"
        lines = [head + ("" if self.target is None else f"  {'target':>7}")]
        rows = zip(self.names, self.parameters, self.trace, strict=True)
        for i, (name, count, share) in enumerate(rows):
            line = f"{name:<{width}}  {count:>12,}  {share:>7.1%}"
            lines.append(line + ("" if self.target is None else f"  {self.target[i]:>7.1%}"))
        return "\n".join(lines)


def by_layer(path: str) -> str:
    """The layer a parameter belongs to: its path without the last name.

    Examples
    --------
    >>> from ntk_lab.empirical import by_layer
    >>> by_layer("layers/0/w"), by_layer("w")
    ('layers/0', 'w')
    """
    return path.rpartition("/")[0] or path


def kernel_shares(
    f: Model,
    params: Params,
    x: Any,
    y: ArrayLike | None = None,
    *,
    group: Group | None = None,
    outputs: Any = "trace",
    select: Select | None = None,
    memory: float | None = None,
    progress: Progress | None = None,
) -> Shares:
    """Shares of the empirical NTK that parameters, layers and neurons have.

    Each number ``theta_j`` of the parameters adds ``sum_i,a (df_a(x_i) / dtheta_j)^2`` to the
    trace of the kernel, and ``(sum_i,a y_ia df_a(x_i) / dtheta_j)^2`` to ``y^T Theta y``, the rate
    at which the network learns ``y``. Sums over the numbers of a group, or of a neuron, are its
    shares; they are exactly additive.

    Parameters
    ----------
    f, params, x, select
        As for :func:`ntk`.
    y
        A direction in the space of outputs, ``(n, *outputs)``: targets, or better the residuals
        ``y - f(params, x)``, for which ``y^T Theta y / n^2`` is the rate at which ``-L`` grows.
    group
        From the path of a parameter (``"layers/0/w"``) to the name of its group, such as
        :func:`by_layer`; by default each parameter is its own.
    outputs
        ``"trace"``: over all outputs. An array ``(C, k)`` or ``(C,)``: of the outputs
        ``f @ array``; ``y`` is then of their shape.
    memory
        Bytes that gradients of single examples may take beside the parameters; default a quarter
        of what is free.
    progress
        Called after each block of examples as ``progress(done, total)``.

    Returns
    -------
    Shares
        ``print`` shows a table. Sums over examples are formed in the dtype of the parameters,
        those over numbers in float64.

    Raises
    ------
    InputError
        As for :func:`ntk`; ``y`` of another shape, a limit too small for one example.
    NumericalError
        Values that are not finite, or a kernel that is zero.

    Notes
    -----
    ``n C`` backward passes for the trace and one for the target direction; memory for one
    gradient an example and output of a block, and two arrays like the parameters. No kernel is
    formed. The kernel's sum over parameters is that of arXiv:1806.07572.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"]
    >>> p = {"w": jnp.eye(2), "v": jnp.array([[1.0], [0.0]])}
    >>> shares = ntk.empirical.kernel_shares(f, p, jnp.array([[0.0, 1.0], [0.0, 2.0]]))
    >>> print(shares)
                 parameters    trace
    v                     2    23.2%
    w                     4    76.8%
    >>> print(shares.units("w")[0].round(3))  # the second neuron has no outgoing weight
    [0.768 0.   ]
    """
    args = arguments(f, params, x, None, select)
    _, basis, _ = cotangents(outputs if not isinstance(outputs, str) else _only(outputs), args)
    program = build(f, args.signature(structured=False, merge=True))
    check_examples(program, args)
    traces = squared(args, program, basis, memory, progress)
    _check(traces, args)
    traces = {i: value / len(basis) for i, value in traces.items()}
    targets = None
    if y is not None:
        targets = directional(args, program, _direction(y, args, basis), memory)
        _check(targets, args)
    names = {i: args.paths[i] if group is None else str(group(args.paths[i])) for i in traces}
    groups = tuple(dict.fromkeys(names.values()))
    trace, total = _grouped(traces, names, groups, "trace of the kernel is")
    target, total_target = None, None
    if targets is not None:
        target, total_target = _grouped(targets, names, groups, "y^T Theta y is")
    sizes = [sum(traces[i].size for i in traces if names[i] == g) for g in groups]
    return Shares(
        names=groups,
        trace=trace,
        target=target,
        total_trace=total,
        total_target=total_target,
        parameters=np.asarray(sizes),
        trace_of={args.paths[i]: value for i, value in traces.items()},
        target_of=None if targets is None else {args.paths[i]: v for i, v in targets.items()},
    )


def _only(outputs: str) -> str:
    if outputs != "trace":
        raise InputError(f"outputs={outputs!r}; choose 'trace', or give an array of outputs.")
    return outputs


def _direction(y: ArrayLike, args: Arguments, basis: jax.Array) -> jax.Array:
    found, (n, _) = jnp.asarray(y), args.sizes
    if found.size != n * len(basis) or found.ndim == 0 or len(found) != n:
        raise InputError(
            f"y has shape {found.shape}; expected ({n}, {len(basis)}), a row an example and a "
            "column an output."
        )
    if not bool(jnp.isfinite(found).all()):
        raise InputError("y holds NaN or infinity.")
    found = found.reshape(n, len(basis)).astype(basis.dtype)
    return jnp.matmul(found, basis, precision="highest")


def _check(values: dict[int, np.ndarray], args: Arguments) -> None:
    for value in values.values():
        check_finite(jnp.asarray(value), args)


def _grouped(
    values: dict[int, np.ndarray], names: dict[int, str], groups: tuple[str, ...], what: str
) -> tuple[np.ndarray, float]:
    """Shares of groups, and the total."""
    sums = dict.fromkeys(groups, 0.0)
    for i, value in values.items():
        sums[names[i]] += float(value.sum())
    total = sum(sums.values())
    if not total:
        raise NumericalError(
            f"{what} zero: no parameter changes these outputs, so there is nothing to share."
        )
    return np.array([value / total for value in sums.values()]), total


def _over_units(values: dict[str, np.ndarray], axes: dict[str, int]) -> np.ndarray:
    """Sums over all axes but that of units, added over parameters."""
    parts: dict[str, np.ndarray] = {}
    for path, axis in axes.items():
        if path not in values:
            raise InputError(f"there is no parameter {path!r}; there are {', '.join(values)}.")
        value = values[path]
        if not -value.ndim <= axis < value.ndim:
            raise InputError(f"{path} has shape {value.shape}, without an axis {axis} of units.")
        parts[path] = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1).sum(1)
    counts = {path: len(part) for path, part in parts.items()}
    if len(set(counts.values())) != 1:
        raise InputError(
            f"numbers of units differ: {counts}; name parameters of one layer, each with its axis "
            "of units."
        )
    return np.sum(list(parts.values()), axis=0)
