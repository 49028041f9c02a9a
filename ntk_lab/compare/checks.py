"""Settings that cannot be compared with, refused before anything is trained."""

from typing import Any

import numpy as np
import optax

from ntk_lab.errors import InputError
from ntk_lab.train.schedule import check_record


def check_whole(**values: tuple[Any, int]) -> None:
    """Errors for a value that is not a whole number, or below the least it may be."""
    for label, (value, least) in values.items():
        if not is_whole(value) or value < least:
            raise InputError(f"{label}={value} must be a whole number of at least {least}.")


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_training(steps, record, batch_size, optimizer, n) -> tuple[int, ...]:
    """The steps to record; errors for settings that training would refuse later."""
    if batch_size is not None and not (is_whole(batch_size) and 1 <= batch_size <= n):
        raise InputError(
            f"batch_size={batch_size} must be a whole number between 1 and the number of training "
            f"examples, {n}."
        )
    made = optimizer(1.0) if callable(optimizer) else optimizer
    if made is not None and not isinstance(made, optax.GradientTransformation):
        raise InputError(
            f"optimizer={optimizer!r} must be an optax optimizer, such as optax.adam(1e-3), or a "
            "function of the learning rate that gives one, such as optax.adam."
        )
    if record is not None and not all(is_whole(r) and r >= 1 for r in record):
        raise InputError(
            f"record={tuple(record)} must be whole step numbers from 1: at step 0 nothing has "
            "moved."
        )
    return check_record(steps, record)


def check_levels(tolerance: float, confidence: float) -> None:
    """Errors for a tolerance or a confidence level out of range."""
    if not 0 < tolerance < 1 or not 0.5 < confidence < 1:
        raise InputError(
            f"tolerance={tolerance} must lie between 0 and 1 and confidence={confidence} between "
            "0.5 and 1."
        )
