"""Kernels of any network by averaging over its random initializations."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.empirical.ntk import ntk
from ntk_lab.empirical.tiles import default_memory
from ntk_lab.errors import InputError, NumericalError

# Fewer samples say too little of their own error to stop on.
_FEWEST = 16


@dataclass(frozen=True)
class MonteCarloKernel:
    """Means over random networks, and how well they are known.

    Attributes
    ----------
    nngp, ntk
        Means of ``f(x1) f(x2)^T`` and of the empirical NTK, both averaged over outputs, each of
        shape ``(n1, n2)``.
    nngp_stderr, ntk_stderr
        Standard error of each entry, from the spread over samples.
    samples
        Number of networks.
    """

    nngp: jax.Array
    ntk: jax.Array
    nngp_stderr: jax.Array
    ntk_stderr: jax.Array
    samples: int

    @property
    def relative_error(self) -> float:
        """Root mean square standard error over root mean square entry; the larger of the two."""
        pairs = (self.nngp, self.nngp_stderr), (self.ntk, self.ntk_stderr)
        return max(_relative(np.asarray(k), np.asarray(e)) for k, e in pairs)


def monte_carlo_kernel(
    init: Any,
    apply: Any = None,
    x1: Any = None,
    x2: Any = None,
    *,
    key: jax.Array,
    accuracy: float = 0.02,
    max_samples: int = 1000,
    chunk: int = 16,
    memory: float | None = None,
    progress: Callable[[MonteCarloKernel], Any] | None = None,
    resume: MonteCarloKernel | None = None,
) -> MonteCarloKernel:
    """NNGP and NTK of any network, averaged over random parameters, with standard errors.

    Called as ``monte_carlo_kernel(init, apply, x1, x2=None, key=...)``, or with a pair in place of
    the two functions: ``monte_carlo_kernel(net, x1, x2=None, key=...)``.

    Parameters
    ----------
    init
        ``init(key, shape) -> params`` for examples of that shape.
    apply
        ``apply(params, x) -> outputs`` of shape ``(n, ...)``, each row a function of its own
        example only. All outputs of an example are averaged over, as outputs of one kind.
    x1, x2
        Batches of shapes ``(n1, *shape)`` and ``(n2, *shape)``; ``x2=None`` means ``x1``.
    key
        Decides all parameters; sample ``i`` is the same whatever ``chunk`` is.
    accuracy
        Stop when the root mean square standard error is at most this share of the root mean square
        entry, in both kernels, and at least 16 networks have been drawn; 0 never stops early.
    max_samples
        Number of networks at which to stop in any case, those of ``resume`` included.
    chunk
        Networks drawn between two looks at the accuracy.
    memory
        Bytes that Jacobians may take, as for :func:`ntk_lab.empirical.ntk`.
    progress
        Called after each chunk with the result so far, which ``resume`` accepts.
    resume
        An earlier result for the same network, inputs and key, to be continued: nothing is
        computed twice, and the outcome is the same, to rounding, as without the interruption.

    Returns
    -------
    MonteCarloKernel

    Raises
    ------
    InputError
        Arguments out of range, or a result to resume that is of another shape.
    NumericalError
        A network whose outputs or gradients are not finite.

    Notes
    -----
    These are means over networks of *this* width. The infinite-width kernel differs from them by
    a bias of order ``1 / width`` (and ``depth / width``), which more samples do not remove: repeat
    at twice the width to see it. The standard error falls as ``1 / sqrt(samples)``, and, for the
    NNGP, with the number of outputs as well: networks with many outputs need fewer samples. Cost:
    ``samples`` empirical NTKs.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Relu(), ntk.nn.Dense(8))
    >>> k = ntk.monte_carlo_kernel(net, jnp.eye(3), key=jax.random.key(0), accuracy=0.05)
    >>> bool(jnp.abs(k.ntk - net.kernel(jnp.eye(3)).ntk).max() < 5 * k.ntk_stderr.max())
    True
    """
    init, apply, x1, x2 = _arguments(init, apply, x1, x2)
    _check(accuracy, max_samples, chunk)
    x2 = x1 if x2 is None else x2
    memory = default_memory() if memory is None else memory
    sums = _Sums((len(x1), len(x2)), resume)
    sample = partial(_sample, init, apply, memory, x1.shape[1:], x2 is x1)
    if resume is not None and not sums.unfinished(accuracy, max_samples):
        return resume
    while True:
        drawn = range(sums.count, min(sums.count + chunk, max_samples))
        # Driven from here: convolutions inside a compiled loop are far slower on CPU.
        kernels = [sample(jax.random.fold_in(key, i), x1, None if x2 is x1 else x2) for i in drawn]
        sums.add([jax.device_get(k) for k in kernels])
        result = sums.result(kernels[0][0].dtype)
        if progress is not None:
            progress(result)
        if not sums.unfinished(accuracy, max_samples):
            return result


@compiled(sequential=True, static_argnums=(0, 1, 2, 3, 4))
def _sample(init, apply, memory, shape, symmetric, key, x1, x2) -> tuple[jax.Array, jax.Array]:
    """NNGP and NTK of one network, each averaged over outputs."""
    params = init(key, shape)
    f1 = apply(params, x1).reshape(len(x1), -1)
    f2 = f1 if symmetric else apply(params, x2).reshape(len(x2), -1)
    nngp = jnp.matmul(f1, f2.T, precision=jax.lax.Precision.HIGHEST) / f1.shape[1]
    return nngp, ntk(apply, params, x1, x2, outputs="trace", memory=memory)


class _Sums:
    """Running means and sums of squared deviations, in double precision."""

    def __init__(self, shape: tuple[int, int], resume: MonteCarloKernel | None):
        self.count, self._mean, self._squares = 0, np.zeros((2, *shape)), np.zeros((2, *shape))
        if resume is None:
            return
        if resume.nngp.shape != shape or resume.samples < 2:
            raise InputError(
                f"cannot resume from kernels of shape {resume.nngp.shape} and {resume.samples} "
                f"samples: the inputs call for {shape}, and two samples at least."
            )
        self.count = n = resume.samples
        self._mean = np.array([resume.nngp, resume.ntk], np.float64)
        errors = np.array([resume.nngp_stderr, resume.ntk_stderr], np.float64)
        self._squares = errors**2 * n * (n - 1)

    def add(self, kernels: list[Any]) -> None:
        for kernel in kernels:
            value = np.array(kernel, np.float64)
            if not np.isfinite(value).all():
                raise NumericalError(
                    f"random network number {self.count} has {(~np.isfinite(value)).sum()} kernel "
                    "entries that are not finite: its outputs or gradients overflow, or the "
                    "inputs hold NaN. Look at apply(init(key, shape), x) on single examples."
                )
            self.count += 1
            step = value - self._mean
            self._mean = self._mean + step / self.count
            self._squares = self._squares + step * (value - self._mean)

    def _errors(self) -> np.ndarray:
        return np.sqrt(self._squares / (self.count * (self.count - 1)))

    def unfinished(self, accuracy: float, max_samples: int) -> bool:
        if self.count >= max_samples:
            return False
        if self.count < _FEWEST or accuracy == 0:
            return True
        worst = max(map(_relative, self._mean, self._errors()))
        return not worst <= accuracy

    def result(self, dtype) -> MonteCarloKernel:
        values = (jnp.asarray(v, dtype) for v in (*self._mean, *self._errors()))
        return MonteCarloKernel(*values, samples=self.count)


def _relative(kernel: np.ndarray, error: np.ndarray) -> float:
    size = math.sqrt(float(np.mean(kernel.astype(np.float64) ** 2)))
    wrong = math.sqrt(float(np.mean(error.astype(np.float64) ** 2)))
    return wrong / size if size > 0 else 0.0 if wrong == 0 else math.inf


def _arguments(init: Any, apply: Any, x1: Any, x2: Any) -> tuple[Any, Any, Any, Any]:
    """Functions and inputs, from either way of calling."""
    if hasattr(init, "init") and hasattr(init, "apply"):
        pair, batches = init, [x for x in (apply, x1, x2) if x is not None]
        init, apply = pair.init, pair.apply
        x1, x2 = (*batches, None, None)[:2]
        if len(batches) > 2:
            raise InputError("monte_carlo_kernel(net, x1, x2=None) takes at most two batches.")
    if not callable(init) or not callable(apply) or x1 is None:
        raise InputError(
            "call monte_carlo_kernel(init, apply, x1, x2=None, key=...) with two functions, or "
            "monte_carlo_kernel(net, x1, x2=None, key=...) with a pair."
        )
    for name, x in (("x1", x1), ("x2", x2)):
        if x is not None and (np.ndim(x) < 1 or len(x) == 0):
            raise InputError(f"{name} has shape {np.shape(x)}; expected a batch (n, *shape).")
    if x2 is not None and np.shape(x1)[1:] != np.shape(x2)[1:]:
        raise InputError(
            f"x1 has examples of shape {np.shape(x1)[1:]} and x2 of {np.shape(x2)[1:]}; they must "
            "be equal."
        )
    # Batches with edges or masks are not arrays, but have a shape too.
    x1, x2 = (x if x is None or hasattr(x, "shape") else jnp.asarray(x) for x in (x1, x2))
    return init, apply, x1, x2


def _check(accuracy: float, max_samples: int, chunk: int) -> None:
    if not 0 <= accuracy < 1:
        raise InputError(f"accuracy={accuracy}; it is a relative error, from 0 to below 1.")
    for name, value, least in (("max_samples", max_samples, 2), ("chunk", chunk, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name}={value!r}; it must be an integer of at least {least}.")
