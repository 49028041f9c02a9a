"""Reading the data of a comparison, and refusing what cannot be compared on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel import check_inputs

# One-hot outputs per class that occurs, beyond which class numbers are taken to be something else.
_SPARSEST = 10


class Data(NamedTuple):
    """Training and test set; ``labels_test`` are class numbers, None for regression."""

    x_train: jax.Array
    y_train: jax.Array
    x_test: jax.Array
    y_test: jax.Array
    labels_test: np.ndarray | None


def read_data(train: Any, test: Any, *, integers: bool = False) -> Data:
    """Check and convert ``(x, y)`` pairs; inputs may be ``integers`` where that is said.

    Integer ``y`` of shape ``(n,)`` are class numbers; they become centred one-hot targets, 1 minus
    ``1/classes`` for the class and ``-1/classes`` elsewhere. Real ``y`` of shape ``(n,)`` become
    one output.
    """
    (x_train, y_train), (x_test, y_test) = (
        _pair(part, name, integers) for part, name in ((train, "train"), (test, "test"))
    )
    classes = None
    if y_train.ndim == 1 and np.issubdtype(y_train.dtype, np.integer):
        classes = _count_classes(y_train, y_test)
    labels_test = y_test if classes else None
    dtype = x_train.dtype if jnp.issubdtype(x_train.dtype, jnp.floating) else None
    dtype = jnp.result_type(float) if dtype is None else dtype
    y_train, y_test = (_targets(y, classes, dtype) for y in (y_train, y_test))
    _check(x_train, y_train, x_test, y_test)
    return Data(x_train, jnp.asarray(y_train), x_test, jnp.asarray(y_test), labels_test)


def _pair(part: Any, name: str, integers: bool) -> tuple[jax.Array, np.ndarray]:
    try:
        x, y = part
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} must be a pair (x, y) of inputs (n, *shape) and targets; got {type(part)}."
        ) from error
    try:
        if integers and np.issubdtype(getattr(x, "dtype", float), np.integer):
            x = jnp.asarray(x)
        else:
            x, _ = check_inputs(x)
    except InputError as error:
        raise InputError(f"{name} set: {error}") from error
    y = np.asarray(y)
    if y.ndim not in (1, 2) or len(y) != len(x) or 0 in y.shape:
        raise InputError(
            f"the {name} set has {len(x)} examples and targets of shape {y.shape}; expected "
            f"({len(x)},) or ({len(x)}, outputs), one row an example in the same order."
        )
    if y.dtype.kind not in "iufb":
        raise InputError(
            f"targets of the {name} set have dtype {y.dtype}; give class numbers as integers "
            "(np.unique(y, return_inverse=True)[1] numbers names), or real targets as floats."
        )
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        rows = np.flatnonzero(~np.isfinite(y).reshape(len(y), -1).all(axis=1))
        raise InputError(
            f"targets of the {name} set are NaN or infinite in {len(rows)} of {len(y)} examples, "
            f"the first of them number {rows[0]}. Remove these examples."
        )
    return x, y


def _count_classes(y_train: np.ndarray, y_test: np.ndarray) -> int:
    if not (y_test.ndim == 1 and np.issubdtype(y_test.dtype, np.integer)):
        raise InputError(
            f"training targets are class numbers but test targets have dtype {y_test.dtype} and "
            f"shape {y_test.shape}; give both as integers of shape (n,)."
        )
    if min(y_train.min(), y_test.min()) < 0:
        raise InputError(
            "integer targets are class numbers, which must be 0 or above; relabel the negative "
            "ones, or pass targets of -1 and 1 as floats, for a network with one output."
        )
    classes, used = int(max(y_train.max(), y_test.max())) + 1, np.union1d(y_train, y_test)
    if classes > _SPARSEST * len(used):
        raise InputError(
            f"integer targets are class numbers, and these run up to {classes - 1} with only "
            f"{len(used)} different ones. Number the classes from 0 (np.unique(y, "
            "return_inverse=True)[1]), or, if these are targets of regression, pass them as floats."
        )
    return classes


def _targets(y: np.ndarray, classes: int | None, dtype: Any) -> np.ndarray:
    if classes is not None:
        return (np.eye(classes)[y] - 1 / classes).astype(dtype)
    with np.errstate(over="ignore"):  # refused with an explanation later
        return (y[:, None] if y.ndim == 1 else y).astype(dtype)


def _check(x_train: jax.Array, y_train: np.ndarray, x_test: jax.Array, y_test: np.ndarray) -> None:
    if not (np.isfinite(y_train).all() and np.isfinite(y_test).all()):
        raise InputError(
            f"targets are too large for {y_train.dtype}, the dtype of the outputs. Scale them to "
            "order one, or use float64."
        )
    if len(x_train) < 2:
        raise InputError(
            "one training example is too few: a kernel of one point says nothing about how "
            "examples share what is learnt. Give at least 2, better 50 or more."
        )
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        raise InputError(
            f"training examples have shape {x_train.shape[1:]} and dtype {x_train.dtype}, test "
            f"examples {x_test.shape[1:]} and {x_test.dtype}; they must agree."
        )
    if y_train.shape[1] != y_test.shape[1]:
        raise InputError(
            f"training targets have {y_train.shape[1]} outputs and test targets "
            f"{y_test.shape[1]}; they must agree."
        )
    if np.ptp(y_train, axis=0).max() == 0:
        raise InputError(
            "the training targets are the same for every example (zero variance): there is "
            "nothing to learn that would tell kernel and network apart. Check the labels, or "
            "whether the data were sorted by class before they were cut."
        )


def spread(n: int, count: int) -> np.ndarray:
    """``count`` of the numbers ``0 .. n - 1``, evenly spaced: data may be sorted by class."""
    return np.linspace(0, n - 1, count).round().astype(int)
