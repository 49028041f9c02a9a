"""Silent alignment: a kernel that turns towards the target before the loss falls."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ntk_lab.errors import InputError


class SilentAlignment(NamedTuple):
    """Course of training at each time, float64 arrays of the shape of ``t``.

    Attributes
    ----------
    learnt
        Length of the learnt linear function along the target, from 0 to ``target_norm``.
    loss
        ``(target_norm - learnt)^2 / 2``.
    kernel_scale
        Squared norm of either layer along the target, ``|a|^2``.
    alignment
        ``y^T Theta y / (|y|^2 |Theta|_F)`` of the NTK on the training set.
    aligned_at
        Time at which the alignment is halfway from its start to its end.
    learnt_at
        Time at which half of the target is learnt.
    """

    learnt: np.ndarray
    loss: np.ndarray
    kernel_scale: np.ndarray
    alignment: np.ndarray
    aligned_at: float
    learnt_at: float


def silent_alignment(
    t: ArrayLike, *, target_norm: float, scale: float, dimension: int
) -> SilentAlignment:
    """Exact gradient flow of a wide two-layer linear network on white inputs.

    The network ``f(x) = a . W x`` with all ``a_k`` and ``W_kj`` of mean 0 and variance
    ``scale / width``, infinitely wide, learns ``y = beta . x`` from inputs with
    ``1/n sum_i x_i x_i^T = 1`` in ``dimension`` directions. With ``s = target_norm = |beta|``,
    ``u = beta / s``, and ``r = a . W u``, ``p = |a|^2 = |W u|^2``::

        dr/dt = 2 (s - r) p,    dp/dt = 2 (s - r) r,    p^2 - r^2 = scale^2
        p = scale cosh theta,   r = scale sinh theta,   d theta / dt = 2 (s - r)

    which integrates to a Moebius map of ``e^theta``. The NTK is ``x^T (p 1 + W^T W) x'`` with
    ``W^T W = p u u^T + scale (1 - u u^T)``. For ``scale << s`` it aligns with the target at
    ``t ~ 1 / s``, whatever the scale, and the loss falls only at ``log(2 s / scale) / (2 s)``:
    silent alignment (arXiv:2111.00034), after which training is kernel regression with the
    aligned kernel.

    Parameters
    ----------
    t
        Times, learning rate x steps, of gradient flow on ``L = 1/(2n) sum_i (f(x_i) - y_i)^2``.
    target_norm
        ``|beta|``, positive.
    scale
        ``width`` times the variance of each parameter, positive.
    dimension
        Of the inputs, at least 1.

    Returns
    -------
    SilentAlignment
        Corrections for finite width are of relative order ``width^(-1/2)``: mostly a shift of the
        time of learning by what ``a . W u`` is initially.

    Raises
    ------
    InputError
        Numbers outside these ranges, negative times.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> found = ntk.theory.silent_alignment([0.0, 3.0], target_norm=1.0, scale=1e-4, dimension=16)
    >>> print(found.alignment.round(2), (found.loss / found.loss[0]).round(2))
    [0.25 0.46] [1.   0.96]
    """
    t = np.asarray(t, np.float64)
    if not (target_norm > 0 and scale > 0 and dimension >= 1 and (t >= 0).all()):
        raise InputError(
            f"target_norm={target_norm}, scale={scale}, dimension={dimension} and the smallest "
            f"time {t.min() if t.size else None}; expected positive numbers and times >= 0."
        )
    s, e = float(target_norm), float(scale)
    rate = np.hypot(s, e)
    high, low = (s + rate) / e, -e / (s + rate)  # fixed points of v = exp(theta)
    decay = np.exp(-2 * rate * t)
    ratio = (high - 1) / (1 - low)
    v = (high + low * ratio * decay) / (1 + ratio * decay)
    # s - r without the cancellation of late times: dv/dt = 2 v (s - r), of the Moebius map.
    left = (high - low) * ratio * rate * decay / (1 + ratio * decay) ** 2 / v
    r, p = s - left, e * (v + 1 / v) / 2
    alignment = _alignment(p, e, dimension)
    halfway = (_alignment(np.float64(e), e, dimension) + _alignment(rate, e, dimension)) / 2
    return SilentAlignment(
        learnt=r,
        loss=left**2 / 2,
        kernel_scale=p,
        alignment=alignment,
        aligned_at=_time_of(_scale_at(halfway, e, dimension), s, e),
        learnt_at=_time_of(float(np.hypot(s / 2, e)), s, e),
    )


def _alignment(p, e: float, dimension: int):
    """Kernel-target alignment: eigenvalue ``2 p`` along the target, ``p + e`` across it."""
    return 2 * p / np.sqrt(4 * p**2 + (dimension - 1) * (p + e) ** 2)


def _scale_at(alignment: float, e: float, dimension: int) -> float:
    """Inverse of :func:`_alignment`: ``2 p / (p + e)`` is ``c`` there."""
    if dimension == 1:
        return e  # always aligned
    c = alignment * np.sqrt((dimension - 1) / (1 - alignment**2))
    return float(c * e / (2 - c))


def _time_of(p: float, s: float, e: float) -> float:
    """When the layers have grown to the squared norm ``p``."""
    rate = np.hypot(s, e)
    high, low = (s + rate) / e, -e / (s + rate)
    v = np.exp(np.arccosh(max(p / e, 1.0)))
    return float(np.log((v - low) * (high - 1) / ((high - v) * (1 - low))) / (2 * rate))
