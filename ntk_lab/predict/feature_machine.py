"""Recursive feature machines: kernel regression that learns its metric."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.predict.inputs import read_array, read_outputs, read_ridge

KernelFunction = Callable[[jax.Array, jax.Array], jax.Array]

_NUMBERS = 2**23  # kernel entries differentiated at once


@dataclass(frozen=True)
class FeatureMachine:
    """Predictors of each iteration; made by :func:`recursive_feature_machine`.

    Attributes
    ----------
    metrics
        ``M`` of each predictor, ``(iterations + 1, d, d)``; the first is the identity, each has
        trace ``d``.
    coefficients
        ``alpha`` of each, ``(iterations + 1, n, outputs)``.
    x
        Training inputs ``(n, d)``.
    kernel, roots
        The kernel as a function, and ``A = M^(1/2)`` of each metric.
    """

    metrics: np.ndarray
    coefficients: np.ndarray
    x: jax.Array
    kernel: KernelFunction
    roots: np.ndarray

    def predict(self, x: ArrayLike, iteration: int = -1) -> jax.Array:
        """Outputs ``(m, outputs)`` on inputs ``(m, d)``, of the last iteration unless given."""
        root = jnp.asarray(self.roots[iteration])
        new = _read_inputs(x, self.x.dtype)
        if new.shape[1] != self.x.shape[1]:
            raise InputError(f"inputs have {new.shape[1]} features; trained on {self.x.shape[1]}.")
        alpha = jnp.asarray(self.coefficients[iteration])
        blocks = _blocks(len(new), len(self.x))
        train = _times(self.x, root)
        rows = [_values(self.kernel, _times(new[b], root), train, alpha) for b in blocks]
        return jnp.concatenate(rows)


def recursive_feature_machine(
    kernel: Any,
    x: ArrayLike,
    y: ArrayLike,
    *,
    iterations: int = 5,
    ridge: ArrayLike = 0.0,
    power: float = 1.0,
) -> FeatureMachine:
    """Kernel ridge regression and its own average gradient outer product as the metric, in turns.

    With ``A = M^(1/2)``, starting from ``M = 1``, each iteration does::

        f(x) = k(x A, X A) alpha,    alpha = (k(X A, X A) + ridge)^-1 y
        M <- (1/n sum_i J_f(x_i)^T J_f(x_i))^power,   scaled to trace d

    so that directions along which the predictor changes are stretched, and others shrink: a kernel
    that learns features as a network does (arXiv:2212.13881). For the Laplace kernel this is the
    paper's machine (with a Mahalanobis metric); for the NTK of a network it is the network that
    multiplies its inputs by ``A``.

    Parameters
    ----------
    kernel
        A pair of `ntk_lab.nn` that takes vectors, for its NTK; or any function
        ``k(x1, x2) -> (n1, n2)`` that is differentiable in ``x1``, such as
        :func:`laplace_kernel`. Functions that compare equal share a compiled program.
    x, y
        Training inputs ``(n, d)`` and targets ``(n, outputs)``.
    iterations
        Times that the metric is learnt. 0 is the plain kernel.
    ridge
        Added to the diagonal of the kernel matrix.
    power
        Of the average gradient outer product, above 0: 1 in the paper, less for a milder metric.

    Returns
    -------
    FeatureMachine
        In the dtype of ``x``. Its choice of iteration belongs on data that is held out.

    Raises
    ------
    InputError
        Arrays that do not fit, NaN, a kernel of another shape.
    NumericalError
        A kernel matrix that is not positive definite in this dtype, or a predictor with no
        gradient at all.

    Notes
    -----
    Each iteration costs a Cholesky factorization, ``n^3 / 3``, an eigendecomposition of ``M``,
    and the kernel with one backward pass for each output. ``O(n^2)`` memory.

    Examples
    --------
    >>> import jax, ntk_lab as ntk
    >>> x = jax.random.normal(jax.random.key(0), (200, 10))
    >>> y = x[:, :1] * x[:, 1:2]  # two directions of ten
    >>> machine = ntk.predict.recursive_feature_machine(
    ...     ntk.predict.laplace_kernel, x, y, iterations=3, ridge=1e-3)
    >>> metric = machine.metrics[-1]
    >>> bool(metric.diagonal()[:2].sum() > 0.9 * metric.trace())
    True
    """
    function = ntk_of(kernel) if hasattr(kernel, "kernel") else kernel
    x = _read_inputs(x)
    y = read_outputs("y", y, len(x), None, x.dtype)
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
        raise InputError(f"iterations is {iterations!r}; it must be an integer of at least 0.")
    if not 0 < power < np.inf:
        raise InputError(f"power is {power}; it must be positive.")
    ridge = read_ridge(ridge, x.dtype)
    metrics, coefficients = [np.eye(x.shape[1], dtype=x.dtype)], []
    roots = [metrics[0]]
    for step in range(iterations + 1):
        z = _times(x, jnp.asarray(roots[-1]))
        alpha = _solve(function, z, y, ridge)
        if not np.isfinite(np.asarray(alpha)).all():
            raise NumericalError(
                f"the kernel matrix of iteration {step} is not positive definite in {x.dtype}: "
                f"give a ridge above {float(ridge):.2g}, or float64."
            )
        coefficients.append(np.asarray(alpha))
        if step < iterations:
            metric, root = _next_metric(function, z, alpha, roots[-1], power)
            metrics.append(metric)
            roots.append(root)
    return FeatureMachine(np.stack(metrics), np.stack(coefficients), x, function, np.stack(roots))


@dataclass(frozen=True)
class ntk_of:
    """The NTK of a pair as a function of two arrays; equal for equal architectures."""

    net: Any

    def __call__(self, x1: jax.Array, x2: jax.Array) -> jax.Array:
        """Kernel matrix ``(n1, n2)``."""
        return self.net.kernel(x1, x2).ntk


def _read_inputs(x: ArrayLike, dtype: Any = None) -> jax.Array:
    x = read_array("x", x, dtype)
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(f"x has shape {x.shape}; expected (n, d): flatten images first.")
    if not np.isfinite(np.asarray(x)).all():
        raise InputError("x has NaN or infinite values; repair or remove them first.")
    return x


def _next_metric(
    kernel: KernelFunction, z: jax.Array, alpha: jax.Array, root: np.ndarray, power: float
) -> tuple[np.ndarray, np.ndarray]:
    """The metric, scaled, and its symmetric square root."""
    total = np.zeros(root.shape)
    for block in _blocks(len(z), len(z)):
        total += np.asarray(_outer(kernel, z[block], z, alpha), np.float64)
    outer = root.astype(np.float64) @ total @ root  # gradients in x, where those above are in x A
    trace = np.trace(outer)
    if not (np.isfinite(trace) and trace > 0):
        raise NumericalError(
            f"the predictor's average gradient outer product has trace {trace}: targets that are "
            "all zero, or a kernel without finite derivatives at coincident inputs."
        )
    values, vectors = np.linalg.eigh((outer + outer.T) / (2 * trace))
    values = np.maximum(values, 0) ** power
    values *= len(values) / values.sum()
    parts = ((vectors * v) @ vectors.T for v in (values, np.sqrt(values)))
    metric, root = (part.astype(root.dtype) for part in parts)
    return metric, root


def _blocks(rows: int, columns: int) -> list[slice]:
    size = max(1, _NUMBERS // columns)
    return [slice(start, start + size) for start in range(0, rows, size)]


@compiled
def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")


@compiled(static_argnums=0)
def _solve(kernel: KernelFunction, z: jax.Array, y: jax.Array, ridge: jax.Array) -> jax.Array:
    matrix = _checked(kernel, z, z)
    factor = jax.scipy.linalg.cho_factor(matrix + ridge * jnp.eye(len(z), dtype=z.dtype))
    return jax.scipy.linalg.cho_solve(factor, y)


@compiled(static_argnums=0)
def _values(kernel: KernelFunction, new: jax.Array, z: jax.Array, alpha: jax.Array) -> jax.Array:
    return jnp.matmul(_checked(kernel, new, z), alpha, precision="highest")


@compiled(static_argnums=0)
def _outer(kernel: KernelFunction, some: jax.Array, z: jax.Array, alpha: jax.Array) -> jax.Array:
    """Sum over these examples and all outputs of gradients times their transposes."""
    values, pullback = jax.vjp(lambda a: _values(kernel, a, z, alpha), some)
    total = jnp.zeros((z.shape[1],) * 2, z.dtype)
    for output in range(alpha.shape[1]):  # one at a time: each holds several kernel matrices
        (gradient,) = pullback(jnp.zeros_like(values).at[:, output].set(1))
        total += jnp.matmul(gradient.T, gradient, precision="highest")
    return total


def _checked(kernel: KernelFunction, a: jax.Array, b: jax.Array) -> jax.Array:
    matrix = kernel(a, b)
    if matrix.shape != (len(a), len(b)):
        raise InputError(f"the kernel has shape {matrix.shape}; expected {(len(a), len(b))}.")
    return matrix
