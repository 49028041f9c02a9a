"""What is recorded of training runs."""

from typing import Any, NamedTuple

import numpy as np


class Trajectory(NamedTuple):
    """What was recorded, with seeds on the first axis and recorded steps on the second.

    Arrays are NumPy's, in the dtype of the outputs. What was recorded after a run diverged is NaN.

    Attributes
    ----------
    steps
        Step numbers, shape ``(T,)``. At step 0 nothing has been updated.
    train, test
        Outputs ``(S, T, n, C)``; ``test`` is None without test inputs.
    loss
        Mean of the loss over the whole training set, ``(S, T)``.
    ntk
        Empirical NTK on the kernel points, ``(S, T, m, m)``, or ``(S, T, m, m, C, C)`` in full;
        None if not asked for.
    motion
        Relative parameter motion ``|theta_t - theta_0| / |theta_0|``, ``(S, T)``.
    diverged
        Number of updates after which the loss of a seed was first not finite, ``(S,)``; -1 where
        it always was.
    ntk_error
        Standard error of each entry of a sketched ``ntk``; None for the others, which are exact.
    sharpness, sharpness_error
        Largest eigenvalue of the Hessian of the training loss, ``(S, T)``, and the norm of its
        residual, within which an eigenvalue lies; None if not asked for.
    top_ntk, top_ntk_error
        Largest eigenvalue of the NTK over all training examples and outputs, divided by ``n``:
        that of the Gauss-Newton part of the Hessian of the squared loss. ``(S, T)``; residual.
    params
        Parameters, with axes ``(S, T, ...)``, or ``(S, 2, ...)`` for those before the first and
        after the last update; None if not kept.
    """

    steps: np.ndarray
    train: np.ndarray
    test: np.ndarray | None
    loss: np.ndarray
    ntk: np.ndarray | None
    motion: np.ndarray
    diverged: np.ndarray
    ntk_error: np.ndarray | None = None
    sharpness: np.ndarray | None = None
    sharpness_error: np.ndarray | None = None
    top_ntk: np.ndarray | None = None
    top_ntk_error: np.ndarray | None = None
    params: Any = None
