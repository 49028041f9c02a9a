"""Learning curves of kernel regression, measured on random training sets."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike
from scipy import linalg

from ntk_lab.errors import InputError
from ntk_lab.theory.kernel_modes import check_kernel_and_targets


class MeasuredCurve(NamedTuple):
    """Errors over random training sets, one entry a size.

    Attributes
    ----------
    n
        Sizes of training sets, ``(sizes,)``.
    errors
        Mean squared error on the examples not trained on, against labels without noise, summed
        over outputs, ``(sizes, repeats)``.
    mean, standard_error
        Over training sets, ``(sizes,)``.
    """

    n: np.ndarray
    errors: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over training sets."""
        return self.errors.mean(1)

    @property
    def standard_error(self) -> np.ndarray:
        """Standard error of that mean."""
        return self.errors.std(1, ddof=1) / self.errors.shape[1] ** 0.5


def measured_learning_curve(
    kernel: ArrayLike,
    targets: ArrayLike,
    n: Sequence[int],
    *,
    key: jax.Array,
    repeats: int = 10,
    ridge: float = 0.0,
    noise: float = 0.0,
) -> MeasuredCurve:
    """Errors of kernel ridge regression on random subsets of a population of ``N`` examples.

    Subsets are drawn without replacement and the error is that on the other ``N - n``: what
    :func:`learning_curve` says of :func:`kernel_modes` with ``population=N``, less the noise of
    test labels, and of the spectrum of a distribution that the ``N`` are drawn from.

    Parameters
    ----------
    kernel, targets
        ``(N, N)`` and ``(N, outputs)``.
    n
        Sizes of training sets, below ``N``.
    key
        ``jax.random`` key of subsets and noise.
    repeats
        Training sets a size, at least 2.
    ridge, noise
        As in :func:`learning_curve`; ``noise`` is summed over outputs, in training labels only.

    Raises
    ------
    InputError
        If shapes or sizes do not fit.

    Cost: ``repeats`` times a Cholesky decomposition of each size and a product ``(N - n, n)``;
    float64.

    Examples
    --------
    >>> import jax, numpy as np, ntk_lab as ntk
    >>> curve = ntk.theory.measured_learning_curve(
    ...     np.eye(4) + 1, np.ones((4, 1)), [1, 3], key=jax.random.key(0), repeats=2)
    >>> curve.mean.round(6).tolist(), curve.standard_error.tolist()
    ([0.25, 0.0625], [0.0, 0.0])
    """
    matrix, y = np.asarray(kernel, np.float64), np.asarray(targets, np.float64)
    check_kernel_and_targets(matrix, y)
    if repeats < 2 or not all(0 < size < len(y) for size in n):
        raise InputError(
            f"expected repeats >= 2 and sizes between 0 and N = {len(y)}; got {repeats} and {n}."
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    errors = np.empty((len(n), repeats))
    for i, size in enumerate(n):
        for j in range(repeats):
            chosen = rng.choice(len(y), size, replace=False)
            labels = y[chosen] + (noise / y.shape[1]) ** 0.5 * rng.standard_normal(
                (size, y.shape[1])
            )
            regularized = matrix[np.ix_(chosen, chosen)] + ridge * np.eye(size)
            weights = linalg.solve(regularized, labels, assume_a="pos")
            others = np.delete(np.arange(len(y)), chosen)
            left = matrix[np.ix_(others, chosen)] @ weights - y[others]
            errors[i, j] = (left**2).sum(1).mean()
    return MeasuredCurve(np.asarray(n), errors)
