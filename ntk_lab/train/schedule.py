"""At which steps a training run is recorded."""

import numpy as np

from ntk_lab.errors import InputError


def log_spaced(steps: int, count: int = 16) -> tuple[int, ...]:
    """About ``count`` whole numbers from 1 to ``steps``, evenly spaced in their logarithm.

    A single one is the last, so that what is recorded there is of the whole run.

    Examples
    --------
    >>> from ntk_lab.train import log_spaced
    >>> log_spaced(100, 5)
    (1, 3, 10, 32, 100)
    """
    if steps < 1 or count < 1:
        raise InputError(f"got steps={steps} and count={count}; both must be at least 1.")
    first = 1 if count > 1 else steps
    return tuple(int(s) for s in np.unique(np.geomspace(first, steps, count).round()))


def check_record(steps: int, record: tuple[int, ...] | None) -> tuple[int, ...]:
    """The steps to record: log-spaced by default, otherwise rising from at least 0 to ``steps``."""
    for number in (steps, *(() if record is None else record)):
        if isinstance(number, bool) or not float(number).is_integer():
            raise InputError(f"steps={steps} and record={record} must be whole numbers of updates.")
    if record is None:
        return log_spaced(int(steps))
    record = tuple(int(r) for r in record)
    if not record or record[0] < 0 or record[-1] > steps or list(record) != sorted(set(record)):
        raise InputError(
            f"record={record} must be rising step numbers between 0 and steps={steps}."
        )
    return record
