"""What predictions return."""

from typing import NamedTuple

import jax

from ntk_lab.predict.probabilities import class_probabilities
from ntk_lab.solve.estimate import Estimate


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

    def probabilities(self, key: jax.Array | None = None, samples: int = 1000) -> Estimate:
        """Predicted class probabilities, softmax of the outputs.

        Parameters
        ----------
        key
            None: the softmax of the mean, as of one network with these outputs. A random key:
            the mean softmax over initializations, as of an ensemble of networks, by Monte Carlo
            over the Gaussian outputs of each example; needs the covariance.
        samples
            Number of draws, at least 2.

        Returns
        -------
        Estimate
            ``value`` of shape ``(n, outputs)`` (for one output the sigmoid, the probability of
            the positive side) with axes of times first, and ``standard_error``, zero without key.

        Raises
        ------
        InputError
            If a key is given, but there is no covariance.

        Notes
        -----
        Probabilities mean what they say after training with cross-entropy or logistic loss. With
        squared error outputs are near 0 and 1, and their softmax is never sure of anything.
        Memory ``samples * n * outputs``.

        Examples
        --------
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> from ntk_lab.predict import Moments
        >>> outputs = Moments(jnp.array([[2.0, 0.0]]), jnp.array([[9.0]]))
        >>> print(outputs.probabilities().value.round(2))
        [[0.88 0.12]]
        >>> drawn = outputs.probabilities(jax.random.key(0), samples=10_000)
        >>> print(np.asarray(drawn.value).round(2), drawn.standard_error.round(3))
        [[0.67 0.33]] [[0.004 0.004]]
        """
        return class_probabilities(self.mean, self.covariance, key, samples)


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
