"""Handwritten digits: 1797 images of 8x8 pixels, shipped inside scikit-learn."""

import numpy as np

from ntk_lab.data.split import Split, split


def digits(train: int = 256, test: int = 512, *, seed: int = 0) -> Split:
    """Handwritten digits, 10 classes (E. Alpaydin and C. Kaynak 1998, UCI).

    Parameters
    ----------
    train, test
        Examples in each part, at most 1797 together, drawn without overlap.
    seed
        Of the random draw.

    Returns
    -------
    Split
        ``train`` and ``test``, each ``(x, y)`` with images ``(n, 8, 8, 1)`` in float32 and class
        numbers ``(n,)``. Pixels have the training set's mean image taken away and are scaled to
        a mean square of one.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> data = ntk.data.digits(train=100, test=50)
    >>> data.train[0].shape, data.test[1].shape
    ((100, 8, 8, 1), (50,))
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("digits ship with scikit-learn: pip install 'ntk_lab[data]'.") from error
    images, labels = load_digits(return_X_y=True)
    return split(images.reshape(-1, 8, 8, 1), np.asarray(labels), train, test, seed)
