"""Spectral bias: which eigenmodes of the kernel training has learnt by when."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntk_lab.errors import InputError
from ntk_lab.predict.descent import GradientDescent
from ntk_lab.predict.flow import GradientFlow
from ntk_lab.predict.stability import stability_limit


class LearntModes(NamedTuple):
    """Eigenmodes of the training kernel, largest eigenvalue first.

    Attributes
    ----------
    eigenvalue
        Of the kernel with its ridge, shape ``(n,)``, or ``(n * outputs,)`` with output axes.
    coefficient
        What is to be learnt of each, ``v^T (y - f0)``, shape ``(n, outputs)``; with output axes
        ``(n * outputs, 1)``.
    share
        Part of it that is learnt at each time, axes of times first: from 0 to 1, beyond with
        momentum, and 0 for ever below the rank threshold.
    time_scale
        Time in which what is left shrinks by ``e``; infinite below the rank threshold.
    max_learning_rate
        At which gradient descent (with the momentum of the prediction) on this mode alone is no
        longer stable; the smallest is that of training.
    """

    eigenvalue: jax.Array
    coefficient: jax.Array
    share: jax.Array
    time_scale: jax.Array
    max_learning_rate: jax.Array

    @property
    def power(self) -> jax.Array:
        """Share of each mode in the squared norm of what is to be learnt, shape ``(n,)``."""
        squares = jnp.sum(self.coefficient**2, axis=1)
        total = jnp.sum(squares)
        return squares / jnp.where(total > 0, total, 1)


def learnt_modes(prediction: GradientFlow | GradientDescent, t: ArrayLike) -> LearntModes:
    """Which eigenmodes are learnt at times ``t``, or after ``t`` steps.

    Parameters
    ----------
    prediction
        What `gradient_flow` or `gradient_descent` returned for squared error and an array.
    t
        As for its ``.at``: times for a flow, numbers of steps for a descent.

    Returns
    -------
    LearntModes
        Cost: one product of eigenvectors that are there already. Works under ``jit`` and ``grad``.

    Raises
    ------
    InputError
        If the prediction has no modes (another loss, an operator), or a time does not fit.

    Notes
    -----
    Each mode is learnt by itself, as ``1 - exp(-t lambda / n)`` in a flow: functions in the span of
    large eigenvalues (smooth ones, for most networks) first (arXiv:1806.07572, arXiv:1901.06523).

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_lab.predict import gradient_flow, learnt_modes
    >>> flow = gradient_flow(np.diag([1.0, 8.0]), np.array([[1.0], [2.0]]))
    >>> found = learnt_modes(flow, [0.5, 2.0])
    >>> print(found.eigenvalue, np.asarray(found.share).round(2), found.time_scale)
    [8. 1.] [[0.86 0.22]
     [1.   0.63]] [0.25 2.  ]
    """
    if not isinstance(prediction, GradientFlow | GradientDescent):
        raise InputError(
            f"a {type(prediction).__name__} has no eigenmodes that are learnt one by one; they "
            "belong to squared error and a kernel given as an array."
        )
    modes = prediction.modes
    limits = stability_limit(
        jnp.maximum(modes.spectrum.eigenvalues, 0) / modes.examples + modes.decay.rate,
        prediction.momentum,
        getattr(prediction, "nesterov", False),
    )
    return LearntModes(
        eigenvalue=modes.spectrum.eigenvalues[::-1],
        coefficient=modes.error[::-1],
        share=prediction.learnt(t)[..., ::-1],
        time_scale=modes.time_scales[::-1],
        max_learning_rate=limits[::-1],
    )
