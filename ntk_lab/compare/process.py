"""Ensembles over initializations: measured outputs against the predicted Gaussian process."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import ndtri, stdtrit

from ntk_lab.kernel.result import Kernel
from ntk_lab.predict import gradient_descent

COVERAGE = 0.9  # of the predicted interval of each test output
_DIRECTIONS = 10


class EnsembleFit(NamedTuple):
    """How an ensemble of networks compares with the predicted distribution at one width and time.

    Attributes
    ----------
    z
        Of the ensemble's mean along the predicted displacement: how many of its standard errors it
        lies from the prediction.
    spread, spread_error
        Mean square of outputs in units of their predicted covariance, along its leading
        directions, those of no spread but rounding left out: 1 if the predicted spread is right.
        With its standard error over seeds.
    coverage, coverage_error
        Share of test outputs inside their predicted interval of nominal ``level``.
    level
        That level.
    seeds
        Number of networks.
    """

    z: float
    spread: float
    spread_error: float
    coverage: float
    coverage_error: float
    level: float
    seeds: int

    def calibrated(self, confidence: float) -> bool:
        """Whether neither mean nor spread contradicts the prediction.

        Each is tested at half of ``1 - confidence``, two-sided: the mean against a normal
        distribution, as its spread is predicted, the spread against Student's t.
        """
        level = 1 - (1 - confidence) / 4
        reach = float(stdtrit(self.seeds - 1, level)) * self.spread_error
        return abs(self.z) < float(ndtri(level)) and abs(self.spread - 1) < reach


@dataclass(frozen=True, eq=False)
class Process:
    """Predicted distribution of test outputs over initializations, at each recorded step.

    ``mean (T, m, C)``, ``deviation (T, m)``, leading eigenvectors of the covariance divided by the
    root of their eigenvalue ``white (T, m, k)`` (zero where that is rounding), and along the
    displacement ``along (T, m, C)`` a projection of unit variance. arXiv:1902.06720, equations 13
    to 16.
    """

    mean: np.ndarray
    deviation: np.ndarray
    white: np.ndarray
    along: np.ndarray

    def measure(self, f: np.ndarray) -> dict[str, np.ndarray]:
        """Of one network's test outputs ``(T, m, C)``: projection, spread and coverage."""
        off = np.asarray(f, np.float64) - self.mean
        inside = np.abs(off) < ndtri((1 + COVERAGE) / 2) * self.deviation[:, :, None]
        return {
            "ensemble/z": (self.along * off).sum((1, 2)),
            "ensemble/spread": self._spread(off),
            "ensemble/coverage": inside.mean((1, 2)),
        }

    def _spread(self, off: np.ndarray) -> np.ndarray:
        squares = np.einsum("tmk,tmc->tkc", self.white, off) ** 2
        counted = np.broadcast_to((np.abs(self.white).max(axis=1) > 0)[:, :, None], squares.shape)
        total = counted.sum((1, 2))
        mean = squares.sum((1, 2)) / np.maximum(total, 1)
        return np.where(total > 0, mean, np.nan)


def predict_process(
    kernels: tuple[Kernel, Kernel, Kernel], y: jax.Array, rate: float, steps: np.ndarray
) -> Process:
    """Distribution after gradient descent, from kernels of (train, train), (test, train), (test).

    Cost: one eigendecomposition of the training kernel and one of the test covariance a step.
    """
    test = gradient_descent(kernels[0], y, *kernels[1:], learning_rate=rate).at(steps).test
    assert test is not None
    assert test.covariance is not None
    eps = float(np.finfo(test.covariance.dtype).eps)
    mean, covariance = (np.asarray(v, np.float64) for v in test)
    covariance = 0.5 * (covariance + covariance.transpose(0, 2, 1))
    values, vectors = np.linalg.eigh(covariance)
    count = min(_DIRECTIONS, mean.shape[1])
    values, vectors = values[:, -count:], vectors[:, :, -count:]
    # Directions of no initial spread, and those in which training leaves none, are rounding noise.
    prior = np.linalg.norm(np.asarray(kernels[2].nngp, np.float64), 2)
    real = values > 4 * mean.shape[1] ** 0.5 * eps * prior
    roots = np.where(real, np.sqrt(np.where(real, values, 1)), np.inf)
    variance = np.einsum("tmc,tmk,tkc->t", mean, covariance, mean)
    scale = np.where(variance > 0, variance, np.inf) ** -0.5
    return Process(
        mean,
        np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0)),
        vectors / roots[:, None],
        mean * scale[:, None, None],
    )


def fit_of_ensemble(z: np.ndarray, spread: np.ndarray, coverage: np.ndarray) -> EnsembleFit | None:
    """Summary of the measures of several seeds, each ``(seeds,)``; None for fewer than two."""
    seeds = len(z)
    if seeds < 2:
        return None
    root = seeds**0.5
    return EnsembleFit(
        float(z.mean() * root),
        float(spread.mean()),
        float(spread.std(ddof=1) / root),
        float(coverage.mean()),
        float(coverage.std(ddof=1) / root),
        COVERAGE,
        seeds,
    )
