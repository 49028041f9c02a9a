"""Training and test parts of a data set."""

from typing import NamedTuple

import numpy as np

from ntk_lab.errors import InputError


class Split(NamedTuple):
    """Two pairs ``(x, y)``."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def split(x: np.ndarray, y: np.ndarray, train: int, test: int, seed: int) -> Split:
    """Draw training and test examples, centre and scale inputs by the training part."""
    if len(x) != len(y):
        raise InputError(f"there are {len(x)} inputs and {len(y)} targets; give one an input.")
    if train < 1 or test < 1 or train + test > len(x):
        raise InputError(
            f"asked for {train} training and {test} test examples; each must be at least 1 and "
            f"together they can be at most {len(x)}."
        )
    order = np.random.default_rng(seed).permutation(len(x))
    chosen, held_out = order[:train], order[train : train + test]
    mean = x[chosen].mean(axis=0)
    scale = np.sqrt(((x[chosen] - mean) ** 2).mean())
    scaled = ((x - mean) / (scale if scale > 0 else 1)).astype(np.float32)
    return Split((scaled[chosen], y[chosen]), (scaled[held_out], y[held_out]))
