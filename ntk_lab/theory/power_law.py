"""Power laws of learning curves and spectra: exponents and extrapolation with intervals."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from scipy import stats

from ntk_lab.errors import InputError


class PowerLaw(NamedTuple):
    """A fit ``value = exp(intercept) * x^exponent``.

    Attributes
    ----------
    exponent, intercept
        Of the straight line in logarithms.
    covariance
        Of (intercept, exponent), ``(2, 2)``.
    degrees_of_freedom
        Of Student's distribution behind the intervals.
    misfit
        Chi squared per degree of freedom, NaN without known errors: far above 1 the values are no
        power law of ``x``, and what it says beyond them is a guess.
    """

    exponent: float
    intercept: float
    covariance: np.ndarray
    degrees_of_freedom: int
    misfit: float

    @property
    def standard_error(self) -> float:
        """Of the exponent."""
        return float(self.covariance[1, 1] ** 0.5)

    def at(self, x: ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Extrapolated values with the lower and upper ends of their confidence intervals."""
        basis = np.stack([np.ones(np.shape(x)), np.log(np.asarray(x, np.float64))], -1)
        line = basis @ np.array([self.intercept, self.exponent])
        width = np.sqrt(np.einsum("...i,ij,...j->...", basis, self.covariance, basis))
        width = width * stats.t.ppf((1 + level) / 2, self.degrees_of_freedom)
        return np.exp(line), np.exp(line - width), np.exp(line + width)


def fit_power_law(
    x: ArrayLike, values: ArrayLike, standard_error: ArrayLike | None = None
) -> PowerLaw:
    """Least squares of a straight line in logarithms, weighted by known errors if there are any.

    The line's covariance is scaled by the residuals where these are larger than the errors say
    (a curve that is no power law then widens its own intervals), and without errors always. The
    intervals hold if the law does: a bend beyond the last point is not in them.

    Parameters
    ----------
    x, values
        Positive, ``(points,)``, at least three.
    standard_error
        Of the values, ``(points,)``.

    Raises
    ------
    InputError
        For too few points, shapes that differ, or values that are not positive.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> law = ntk.theory.fit_power_law([1, 10, 100], [3.0, 0.3, 0.03])
    >>> round(law.exponent, 6), round(float(law.at(1000)[0]), 6)
    (-1.0, 0.003)
    """
    points, y = np.asarray(x, np.float64), np.asarray(values, np.float64)
    errors = np.ones_like(y) if standard_error is None else np.asarray(standard_error, np.float64)
    if points.ndim != 1 or not points.shape == y.shape == errors.shape or len(points) < 3:
        raise InputError(
            "a power law needs at least three points x with values (and errors) of the same "
            f"length; got shapes {points.shape}, {y.shape} and {errors.shape}."
        )
    if not all((part > 0).all() for part in (points, y, errors)):
        raise InputError("x, values and standard errors of a power law must be positive.")
    weight = np.ones_like(y) if standard_error is None else y / errors
    basis = np.stack([np.ones_like(points), np.log(points)], 1) * weight[:, None]
    inverse = np.linalg.inv(basis.T @ basis)
    line = inverse @ (basis.T @ (np.log(y) * weight))
    freedom = len(points) - 2
    scatter = float((((np.log(y) * weight) - basis @ line) ** 2).sum() / freedom)
    scale = scatter if standard_error is None else max(scatter, 1.0)
    misfit = float("nan") if standard_error is None else scatter
    return PowerLaw(float(line[1]), float(line[0]), inverse * scale, freedom, misfit)
