"""MNIST-1D: ten classes of noisy sequences, made by the package mnist1d."""

import random
from typing import Any

import numpy as np

from ntk_lab.data.split import Split, split
from ntk_lab.errors import InputError


def mnist1d(train: int = 1000, test: int = 1000, *, seed: int = 0) -> Split:
    """Sequences of 40 numbers in 10 classes (Greydanus and Kobak, arXiv:2011.14439).

    A template of each class is shifted, scaled, sheared and buried in noise, so that small
    networks differ on it: linear ones reach about 32% accuracy, convolutional ones 94%.

    Parameters
    ----------
    train, test
        Examples in each part, of any number: they are generated, at about 5000 a second.
    seed
        Of the random draw.

    Returns
    -------
    Split
        ``train`` and ``test``, each ``(x, y)`` with sequences ``(n, 40, 1)`` in float32 and class
        numbers ``(n,)``. Inputs have the training set's mean taken away and are scaled to a mean
        square of one.

    Raises
    ------
    ImportError
        mnist1d is missing (extra ``data``).

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> data = ntk.data.mnist1d(train=60, test=40)
    >>> data.train[0].shape, data.test[1].shape
    ((60, 40, 1), (40,))
    """
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as error:
        raise ImportError(
            "these sequences are made by mnist1d: pip install 'ntk_lab[data]'."
        ) from error
    if train < 1 or test < 1:
        raise InputError(f"asked for {train} training and {test} test examples; give at least 1.")
    settings: Any = get_dataset_args()
    # It makes as many of each class, so the next multiple of ten; `split` leaves out the rest.
    settings.num_samples, settings.seed = -(-(train + test) // 10) * 10, seed
    # The generator reseeds the random numbers of the whole process.
    before, numbers = random.getstate(), np.random.get_state()
    try:
        made = make_dataset(settings)
    finally:
        random.setstate(before)
        np.random.set_state(numbers)
    x = np.concatenate([made["x"], made["x_test"]])
    y = np.concatenate([made["y"], made["y_test"]])
    return split(x.reshape(-1, 40, 1), y, train, test, seed)
