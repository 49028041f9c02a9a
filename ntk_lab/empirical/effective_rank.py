"""How many directions a spectrum has, without a threshold."""

import numpy as np
from numpy.typing import ArrayLike

from ntk_lab.errors import InputError


def effective_rank(eigenvalues: ArrayLike) -> np.ndarray:
    """Exponential of the entropy of a spectrum, ``exp(-sum p log p)`` with ``p = l / sum l``.

    Parameters
    ----------
    eigenvalues
        Numbers ``(..., n)``, none negative; their order does not matter.

    Returns
    -------
    numpy.ndarray
        Shape ``(...)``, float64, from 1 (one direction) to ``n`` (all alike); NaN where all are 0.

    Raises
    ------
    InputError
        Negative values, NaN, or none at all.

    Notes
    -----
    Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality" (EUSIPCO).
    Never below :func:`participation_ratio`, as the tail of the spectrum counts for more here.

    Examples
    --------
    >>> from ntk_lab.empirical import effective_rank
    >>> print(effective_rank([[1.0, 1.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]]).round(2))
    [2.   1.75]
    """
    p = _distribution(eigenvalues)
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
    return np.exp(entropy)


def participation_ratio(eigenvalues: ArrayLike) -> np.ndarray:
    """``(sum l)^2 / sum l^2`` of a spectrum: how many equal values would be as spread out.

    Parameters
    ----------
    eigenvalues
        Numbers ``(..., n)``, none negative; their order does not matter.

    Returns
    -------
    numpy.ndarray
        Shape ``(...)``, float64, from 1 to ``n``; NaN where all are 0.

    Raises
    ------
    InputError
        Negative values, NaN, or none at all.

    Notes
    -----
    Of a kernel it is ``(tr K)^2 / |K|^2``. The exponential of the Renyi entropy of order 2, where
    :func:`effective_rank` is that of order 1.

    Examples
    --------
    >>> from ntk_lab.empirical import participation_ratio
    >>> print(participation_ratio([[1.0, 1.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]]))
    [2.  1.6]
    """
    return 1 / np.sum(_distribution(eigenvalues) ** 2, axis=-1)


def _distribution(eigenvalues: ArrayLike) -> np.ndarray:
    values = np.asarray(eigenvalues, np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise InputError(f"eigenvalues have shape {values.shape}; expected (..., n), n at least 1.")
    if not (values >= 0).all() or not np.isfinite(values).all():
        worst = values[~((values >= 0) & np.isfinite(values))].flat[0]
        raise InputError(
            f"an eigenvalue is {worst:.3g}; those of a kernel are finite and not negative. Set "
            "to zero what rounding has made of zeros."
        )
    total = values.sum(-1, keepdims=True)
    return np.where(total > 0, values / np.where(total > 0, total, 1.0), np.nan)
