"""What predictions return."""

from typing import NamedTuple

import jax


class Moments(NamedTuple):
    """Mean and covariance of network outputs on one set of inputs.

    A leading axis for the times (or steps) comes first where an array of them was asked for.

    Attributes
    ----------
    mean
        Shape ``(n, outputs)``.
    covariance
        Over random initializations, shape ``(n, n)``, the same for each output, and zero between
        different outputs. With a kernel that has output axes, ``(n, n, outputs, outputs)``.
        None where the prediction is for given initial outputs, or where a kernel it needs was
        not passed.
    """

    mean: jax.Array
    covariance: jax.Array | None


class Prediction(NamedTuple):
    """Predicted outputs on the training set and on the test set.

    Attributes
    ----------
    train
        Moments on the training inputs.
    test
        Moments on the test inputs; None if no test kernel was passed.
    """

    train: Moments
    test: Moments | None
