"""Spectrum of dot-product kernels on the sphere, by quadrature."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ntk_lab.errors import InputError


class SphereSpectrum(NamedTuple):
    """Eigenvalues by degree of the spherical harmonics, each a vector ``(degrees,)``, float64.

    Attributes
    ----------
    eigenvalues
        Of the integral operator over the uniform distribution.
    multiplicity
        Number of harmonics of each degree.
    """

    eigenvalues: np.ndarray
    multiplicity: np.ndarray


def sphere_spectrum(
    kernel: Callable[[np.ndarray], np.ndarray], dimension: int, degrees: int, *, points: int = 2000
) -> SphereSpectrum:
    """Spectrum of ``K(x, x') = kernel(cos)`` for inputs uniform on the sphere of ``R^dimension``.

    ``lambda_k = E[kernel(t) P_k(t)]`` with ``t`` the first coordinate of a random point and ``P_k``
    the Legendre polynomial of that dimension, ``P_k(1) = 1`` (Funk and Hecke; arXiv:1905.12173);
    multiplicities ``(2k + d - 2) / k * C(k + d - 3, k - 1)``. By Gauss-Legendre quadrature in the
    angle, where kernels of Relu networks are smooth in spite of their roots at ``t = 1``: errors
    fall exponentially in ``points`` there, and for analytic kernels. All in float64.

    Parameters
    ----------
    kernel
        Takes cosines ``(points,)`` in ``(-1, 1)``.
    dimension
        Of the space, at least 2.
    degrees
        Number of degrees, from 0 on.

    Raises
    ------
    InputError
        For fewer than two dimensions, no degree, or no more points than twice the degrees.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> spectrum = ntk.theory.sphere_spectrum(lambda t: t, dimension=5, degrees=3)
    >>> [round(float(v), 6) + 0.0 for v in spectrum.eigenvalues], spectrum.multiplicity.tolist()
    ([0.0, 0.2, 0.0], [1.0, 5.0, 14.0])
    """
    if dimension < 2 or degrees < 1 or points <= 2 * degrees:
        raise InputError(
            "sphere_spectrum needs dimension >= 2, degrees >= 1 and points > 2 * degrees; got "
            f"dimension {dimension}, degrees {degrees}, points {points}."
        )
    abscissae, weights = np.polynomial.legendre.leggauss(points)
    angle = np.pi * (abscissae + 1) / 2
    nodes, weights = np.cos(angle), weights * np.sin(angle) ** (dimension - 2)
    weighted = weights / weights.sum() * np.asarray(kernel(nodes), np.float64)
    eigenvalues = np.empty(degrees)
    before, now = np.zeros_like(nodes), np.ones_like(nodes)
    for k in range(degrees):
        eigenvalues[k] = weighted @ now
        # Gegenbauer's recursion, normalized to 1 at t = 1.
        after = (
            ((2 * k + dimension - 2) * nodes * now - k * before) / (k + dimension - 2)
            if k
            else nodes
        )
        before, now = now, after
    return SphereSpectrum(eigenvalues, np.array([_harmonics(dimension, k) for k in range(degrees)]))


def _harmonics(dimension: int, degree: int) -> float:
    """Dimension of the space of harmonics of one degree."""
    lower = math.comb(dimension + degree - 3, degree - 2) if degree > 1 else 0
    return float(math.comb(dimension + degree - 1, degree) - lower)
