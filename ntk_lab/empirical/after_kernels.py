"""Kernels of a network along its training: how far they move, and whether towards the targets."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ntk_lab.empirical.alignment import alignment
from ntk_lab.empirical.ntk import Method, Model, Outputs, Params, Progress, ntk
from ntk_lab.errors import InputError


@dataclass(frozen=True)
class AfterKernels:
    """Kernels of checkpoints, and what they say.

    Attributes
    ----------
    steps
        Names of the checkpoints, in order: keys of the mapping, or 0, 1, 2, ...
    drift
        ``|Theta_t - Theta_0| / |Theta_0|`` (Frobenius norm) of each, float64; the first is 0.
    alignment
        Centred alignment of each kernel with the targets, in [-1, 1], float64; None without
        targets, NaN where nothing is left of a kernel when it is centred.
    kernels
        Kernels one after the other, ``(checkpoints, n1, n2, ...)``; None with ``keep=False``.
    """

    steps: tuple[Any, ...]
    drift: np.ndarray
    alignment: np.ndarray | None
    kernels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.steps)

    def __str__(self) -> str:
        heads = ["step", "drift"] + (["alignment"] if self.alignment is not None else [])
        lines = ["  ".join(f"{head:>10}" for head in heads)]
        for i, step in enumerate(self.steps):
            values = [self.drift[i]] + ([self.alignment[i]] if self.alignment is not None else [])
            lines.append("  ".join([f"{step!s:>10}", *(f"{value:10.4f}" for value in values)]))
        return "\n".join(lines)


def after_kernels(
    f: Model,
    checkpoints: Iterable[Params] | Mapping[Any, Params],
    x1: Any,
    x2: Any = None,
    *,
    targets: Any = None,
    outputs: Outputs | Any = "trace",
    keep: bool = True,
    method: Method = "auto",
    memory: float | None = None,
    progress: Progress | None = None,
    select: Any = None,
) -> AfterKernels:
    """Empirical NTKs of the checkpoints of a training run: after-kernels.

    How far the kernel has moved from the first checkpoint, ``|Theta_t - Theta_0| / |Theta_0|``,
    and how much of it points at the targets, ``<H Theta_t H, y y^T> / (|H Theta_t H| |H y y^T H|)``
    with ``H`` the centring matrix. A kernel that aligns with the targets in training has learned
    features; the last of them is often a better kernel than the first (arXiv:2105.14301).

    Parameters
    ----------
    f, x1, x2, method, memory, select
        As for :func:`ntk`.
    checkpoints
        Parameters one after the other, any iterable (a generator may load them from disk), or a
        mapping from steps to parameters, in the order of training.
    targets
        ``(n1, ...)``, one row an example of ``x1``; only for ``x2=None``. With an array of
        ``outputs``, targets of these outputs.
    outputs
        As for :func:`ntk`. The alignment is that of the mean over the diagonal of outputs.
    keep
        Whether to return the kernels. With False, two of them are in memory at a time.
    progress
        Called after each checkpoint as ``progress(done, total)``; ``total`` is 0 where the number
        of checkpoints is not known before.

    Returns
    -------
    AfterKernels
        ``print`` shows it as a table; kernels in the dtype of the parameters.

    Raises
    ------
    InputError
        No checkpoints, checkpoints of different shapes, targets that do not fit, and as for
        :func:`ntk`.
    NumericalError
        Kernel values that are not finite.

    Notes
    -----
    One kernel a checkpoint, compiled once for all. arXiv:1203.0550 (alignment).

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda w, x: w**2 * x  # Theta = 4 w^2 x x'
    >>> x = jnp.array([[1.0], [2.0], [4.0]])
    >>> run = {0: jnp.float32(1.0), 100: jnp.float32(1.5)}
    >>> print(ntk.empirical.after_kernels(f, run, x, targets=x))
          step       drift   alignment
             0      0.0000      1.0000
           100      1.2500      1.0000
    """
    gram = _gram(targets, x1, x2)
    total = len(checkpoints) if hasattr(checkpoints, "__len__") else 0  # type: ignore[arg-type]
    steps, kernels, drift, aligned = [], [], [], []
    first: Any = None
    shapes: Any = None
    for step, params in _pairs(checkpoints):
        found = jax.tree.map(np.shape, params)
        if shapes is None:
            shapes = found
        elif found != shapes:
            raise InputError(
                f"checkpoint {step} has parameters of shapes {found}, the first of {shapes}; "
                "expected checkpoints of one network."
            )
        kernel = np.asarray(
            ntk(f, params, x1, x2, outputs=outputs, method=method, memory=memory, select=select)
        )
        first = kernel if first is None else first
        steps.append(step)
        drift.append(_distance(kernel, first))
        if gram is not None:
            aligned.append(alignment(_mean_over_outputs(kernel), gram))
        if keep:
            kernels.append(kernel)
        if progress is not None:
            progress(len(steps), total)
    if not steps:
        raise InputError("checkpoints is empty; expected parameters of at least one.")
    return AfterKernels(
        tuple(steps),
        np.asarray(drift),
        None if gram is None else np.asarray(aligned),
        np.stack(kernels) if keep else None,
    )


def _pairs(checkpoints: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(checkpoints, Mapping):
        for step in checkpoints:  # one at a time: a mapping may load what it is asked for
            yield step, checkpoints[step]
        return
    yield from enumerate(checkpoints)


def _gram(targets: Any, x1: Any, x2: Any) -> np.ndarray | None:
    if targets is None:
        return None
    if x2 is not None:
        raise InputError("targets are those of x1 and need the kernel of x1 with itself: x2=None.")
    y = np.asarray(targets, np.float64)
    n = len(jax.tree.leaves(x1)[0])
    if y.ndim == 0 or len(y) != n:
        raise InputError(f"targets have shape {y.shape}; expected ({n}, ...), a row an example.")
    y = y.reshape(n, -1)
    return y @ y.T


def _mean_over_outputs(kernel: np.ndarray) -> np.ndarray:
    if kernel.ndim == 4:
        return np.einsum("ijaa->ij", kernel) / kernel.shape[-1]
    return kernel.mean(2) if kernel.ndim == 3 else kernel


def _distance(kernel: np.ndarray, first: np.ndarray) -> float:
    norm = float(np.linalg.norm(np.asarray(first, np.float64)))
    moved = float(np.linalg.norm(np.asarray(kernel, np.float64) - first))
    return moved / norm if norm else (0.0 if not moved else float("inf"))
