"""What one cell of a phase diagram compares: network, training data and options."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.nn import Module

AXES = (
    "width", "depth", "learning_rate", "alpha", "parameterization", "train_size", "label_noise",
)  # fmt: skip


class Cell(NamedTuple):
    """Arguments of one comparison."""

    net: Module
    train: tuple[Any, Any]
    options: dict[str, Any]


def prepare_cell(
    net: Module | Callable[[int], Module],
    train: tuple[Any, Any],
    values: Mapping[str, Any],
    key: int,
    options: Mapping[str, Any],
) -> Cell:
    """The comparison at given values of two settings."""
    options = dict(options)
    if "depth" in values:
        if isinstance(net, Module):
            raise InputError(
                "to sweep the depth, give a function from the depth to a network, such as "
                "lambda depth: ntk.nn.Sequential(*[ntk.nn.Dense(64), ntk.nn.Relu()] * depth, "
                "ntk.nn.Dense(1))."
            )
        net = net(values["depth"])
    if not isinstance(net, Module):
        raise InputError(f"phase_diagram needs an ntk_lab.nn network; got {type(net)}.")
    for name in ("learning_rate", "alpha", "parameterization"):
        if name in values:
            options[name] = values[name]
    if "width" in values:
        options["widths"] = (values["width"],)
    elif "widths" not in options:
        options["widths"] = (256,)
    if len(tuple(options["widths"])) != 1:
        raise InputError(f"widths={options['widths']} of a phase diagram must be a single one.")
    x, y = train
    if "train_size" in values:
        size = values["train_size"]
        if not 2 <= size <= len(x):
            raise InputError(f"train_size={size} must be between 2 and the {len(x)} examples.")
        x, y = x[:size], y[:size]
    if "label_noise" in values:
        y = with_label_noise(np.asarray(y), values["label_noise"], key)
    return Cell(net, (x, y), options)


def with_label_noise(y: np.ndarray, amount: float, key: int) -> np.ndarray:
    """Targets with noise: a share of class numbers drawn anew, or Gaussian noise on real ones.

    Real targets get noise of ``amount`` times their own standard deviation. A larger amount
    changes the same examples, and more of them.
    """
    rng = np.random.default_rng([key, 7])
    if np.issubdtype(y.dtype, np.integer):
        if not 0 <= amount <= 1:
            raise InputError(f"label_noise={amount} is a share of labels; it must be in [0, 1].")
        chosen = rng.random(len(y)) < amount
        return np.where(chosen, rng.integers(y.max() + 1, size=len(y)), y)
    if not 0 <= amount < np.inf:
        raise InputError(f"label_noise={amount} must be finite and not negative.")
    return y + (amount * y.std() * rng.standard_normal(y.shape)).astype(y.dtype)
