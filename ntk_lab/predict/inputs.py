"""Reading the arguments of predictions: every shape and value is checked here, once."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.operator import Operator
from ntk_lab.errors import InputError
from ntk_lab.kernel.result import Kernel

KernelLike = ArrayLike | Kernel | Operator
Which = Literal["ntk", "nngp"]


class Blocks(NamedTuple):
    """One kernel between the sets, as matrices."""

    train_train: jax.Array
    test_train: jax.Array | None
    test_test: jax.Array | None


@dataclass(frozen=True)
class Problem:
    """A regression problem in flat form: rows are examples, or pairs (example, output).

    Attributes
    ----------
    examples
        Number n of training examples.
    outputs
        Size of the kernel's output axes; None if it has none and outputs share it.
    theta
        The kernel that drives training.
    nngp
        Covariance of the initial outputs; None if these are given.
    targets, f0_train, f0_test
        Shape ``(rows, columns)``.
    """

    examples: int
    outputs: int | None
    theta: Blocks
    nngp: Blocks | None
    targets: jax.Array
    f0_train: jax.Array
    f0_test: jax.Array | None


def read_problem(
    kernel_train_train: KernelLike,
    y_train: ArrayLike,
    kernel_test_train: KernelLike | None,
    kernel_test_test: KernelLike | None,
    f0_train: ArrayLike | None,
    f0_test: ArrayLike | None,
    which: Which,
) -> Problem:
    """Check and flatten the arguments of a prediction; see `gradient_flow` for what they are."""
    kernels = {
        "kernel_train_train": kernel_train_train,
        "kernel_test_train": kernel_test_train,
        "kernel_test_test": kernel_test_test,
    }
    _check_kinds(kernels, which)
    pairs = isinstance(kernel_train_train, Kernel)
    theta, outputs = read_blocks(kernels, which if pairs else None)
    nngp = None
    if pairs and f0_train is None:
        nngp, _ = read_blocks(kernels, "nngp", theta.train_train.dtype)

    dtype = theta.train_train.dtype
    n = len(theta.train_train) // (outputs or 1)
    y = read_outputs("y_train", y_train, n, outputs, dtype)
    check_starts(f0_train, f0_test, kernel_test_train)
    f0_train = jnp.zeros_like(y) if f0_train is None else f0_train
    f0_train = read_outputs("f0_train", f0_train, n, y.shape[1], dtype)
    if theta.test_train is not None:
        n_test = len(theta.test_train) // (outputs or 1)
        f0_test = jnp.zeros((n_test, y.shape[1]), dtype) if f0_test is None else f0_test
        f0_test = read_outputs("f0_test", f0_test, n_test, y.shape[1], dtype)

    def flat(f: Any) -> Any:
        return f if f is None or outputs is None else f.reshape(-1, 1)

    return Problem(n, outputs, theta, nngp, flat(y), flat(f0_train), flat(f0_test))


def check_starts(f0_train: Any, f0_test: Any, kernel_test_train: Any) -> None:
    """Initial outputs on both sets or on none, and on the test set only if there is one."""
    if (f0_train is None) != (f0_test is None) and kernel_test_train is not None:
        raise InputError("f0_train and f0_test must be given together, or neither (both zero).")
    if f0_test is not None and kernel_test_train is None:
        raise InputError("f0_test is given, but the test set needs kernel_test_train too.")


def read_ridge(ridge: ArrayLike, dtype: Any, name: str = "ridge") -> jax.Array:
    """One number that is not negative."""
    found = read_non_negative(name, ridge, dtype)
    if found.ndim:
        raise InputError(f"{name} has shape {found.shape}; one number is needed.")
    return found


def _check_kinds(kernels: dict[str, Any], which: str) -> None:
    if which not in ("ntk", "nngp"):
        raise InputError(f'which is {which!r}; it must be "ntk" (all layers train) or "nngp".')
    given = {name: isinstance(k, Kernel) for name, k in kernels.items() if k is not None}
    if len(set(given.values())) > 1:
        kinds = ", ".join(
            f"{name} is {'a Kernel' if p else 'an array'}" for name, p in given.items()
        )
        raise InputError(
            f"{kinds}; pass only Kernels (for mean and covariance over initializations) or only "
            "arrays, such as kernel.ntk (for given initial outputs)."
        )
    if kernels["kernel_test_test"] is not None and kernels["kernel_test_train"] is None:
        raise InputError("kernel_test_test is given, but the test set needs kernel_test_train too.")


def read_blocks(
    kernels: dict[str, Any], field: str | None, dtype: Any = None
) -> tuple[Blocks, int | None]:
    """The three blocks of one kernel as matrices, and the size of its output axes."""
    train = _take("kernel_train_train", kernels["kernel_train_train"], field, dtype)
    arrays = {
        name: _take(name, kernel, field, train.dtype)
        for name, kernel in kernels.items()
        if kernel is not None
    }
    if train.ndim not in (2, 4) or train.shape[0] != train.shape[1] or 0 in train.shape:
        raise InputError(
            f"kernel_train_train has shape {train.shape}; expected (n, n), or "
            "(n, n, outputs, outputs) for a kernel with output axes."
        )
    axes = train.shape[2:]
    if axes and axes[0] != axes[1]:
        raise InputError(f"the output axes of kernel_train_train differ: {axes}.")
    n = len(train)
    test = arrays.get("kernel_test_train")
    if test is not None:
        _check_test_train(test.shape, n, axes)
    corner = arrays.get("kernel_test_test")
    if corner is not None and test is not None and corner.shape != (len(test), len(test), *axes):
        raise InputError(
            f"kernel_test_test has shape {corner.shape}; with kernel_test_train of shape "
            f"{test.shape}, expected {(len(test), len(test), *axes)}."
        )
    blocks = Blocks(_flatten(train), _flatten(test), _flatten(corner))
    for name, array in arrays.items():
        check_finite(name, array)
    return blocks, (axes[0] if axes else None)


def _check_test_train(shape: tuple[int, ...], n: int, axes: tuple[int, ...]) -> None:
    if len(shape) == 2 + len(axes) and shape[1] == n and shape[2:] == axes and shape[0] > 0:
        return
    wanted = ", ".join(["n_test", str(n), *map(str, axes)])
    hint = ""
    if len(shape) >= 2 and shape[0] == n:
        hint = " Its axes look swapped: pass the kernel of (test, train), not of (train, test)."
    raise InputError(f"kernel_test_train has shape {shape}; expected ({wanted}).{hint}")


def _take(name: str, kernel: Any, field: str | None, dtype: Any) -> jax.Array:
    if field is not None:
        kernel, name = getattr(kernel, field), f"{name}.{field}"
        if kernel is None:
            raise InputError(f"{name} is None, but this prediction needs it.")
    return read_array(name, kernel, dtype)


@overload
def _flatten(kernel: jax.Array) -> jax.Array: ...


@overload
def _flatten(kernel: jax.Array | None) -> jax.Array | None: ...


def _flatten(kernel: jax.Array | None) -> jax.Array | None:
    if kernel is None or kernel.ndim == 2:
        return kernel
    n1, n2, c, _ = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(n1 * c, n2 * c)


def read_outputs(name: str, f: Any, n: int, columns: int | None, dtype: Any) -> jax.Array:
    """Outputs or targets of ``n`` examples, checked."""
    f = read_array(name, f, dtype)
    if f.ndim == 1:
        raise InputError(
            f"{name} has shape {f.shape}; reshape it to (n, outputs), e.g. {name}[:, None]."
        )
    if f.ndim != 2 or len(f) != n or columns not in (None, f.shape[1]) or f.shape[1] == 0:
        wanted = f"({n}, {'outputs' if columns is None else columns})"
        raise InputError(f"{name} has shape {f.shape}; the kernels given call for {wanted}.")
    check_finite(name, f)
    return f


def check_finite(name: str, x: jax.Array) -> None:
    """Refuse NaN and infinity, where values can be looked at."""
    if is_concrete(x) and not np.isfinite(np.asarray(x)).all():
        raise InputError(
            f"{name} has {int(np.sum(~np.isfinite(np.asarray(x))))} NaN or infinite values of "
            f"{x.size}; a prediction from it would be meaningless. Repair or remove them first."
        )


def read_array(name: str, x: Any, dtype: Any = None) -> jax.Array:
    """Real numbers as a float32 or float64 array, of the given dtype if there is one."""
    if isinstance(x, Operator):
        raise InputError(
            f"{name} is an operator; here the kernel is needed as an array (ntk.empirical.ntk). "
            "gradient_flow and gradient_descent take operators for both kernels."
        )
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
        if x.dtype.kind in "OUSmM":
            raise InputError(f"{name} has dtype {x.dtype}; an array of real numbers is needed.")
        x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise InputError(f"{name} is {x.dtype}; real numbers are needed.")
    if dtype is not None:
        return x.astype(dtype)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(jnp.result_type(float))
    if x.dtype not in (jnp.float32, jnp.float64):
        raise InputError(f"{name} is {x.dtype}; convert it to float32 or float64.")
    return x


def read_non_negative(name: str, x: ArrayLike, dtype: Any) -> jax.Array:
    """Numbers that are not negative (infinity included), checked where they can be looked at."""
    if not is_concrete(x):
        return jnp.asarray(x).astype(dtype)
    values = np.asarray(x)
    if not np.isrealobj(values) or values.dtype.kind not in "iuf":
        raise InputError(f"{name} has dtype {values.dtype}; real numbers >= 0 are needed.")
    if not (values >= 0).all():
        worst = values[~(values >= 0)].flat[0]
        raise InputError(f"{name} is {worst}; it must be >= 0.")
    # Numbers beyond the range of the dtype mean infinity.
    values = values.astype(np.float64)
    values = np.where(values > float(jnp.finfo(dtype).max), np.inf, values)
    return jnp.asarray(values.astype(dtype))


def read_steps(steps: ArrayLike) -> jax.Array:
    """Numbers of steps as int32, checked where they can be looked at."""
    values = np.asarray(steps) if is_concrete(steps) else jnp.asarray(steps)
    if values.dtype.kind not in "iu":
        raise InputError(
            f"steps has dtype {values.dtype}; a number of steps is an integer (for any time, "
            "infinity included, use gradient_flow)."
        )
    if isinstance(values, np.ndarray) and values.size:
        low, high = values.min(), values.max()
        if low < 0 or high >= 2**31:
            raise InputError(f"steps is {low if low < 0 else high}; expected 0 <= steps < 2^31.")
    return jnp.asarray(values.astype(np.int32))


def read_learning_rate(learning_rate: ArrayLike, dtype: Any) -> jax.Array:
    """One positive number."""
    rate = read_non_negative("learning_rate", learning_rate, dtype)
    if rate.ndim or (is_concrete(rate) and not 0 < rate < np.inf):
        raise InputError(f"learning_rate is {learning_rate}; expected one number, 0 < rate < inf.")
    return rate


def read_momentum(momentum: float) -> float:
    """Decay of the velocity, a Python number."""
    momentum = float(momentum)
    if not 0 <= momentum < 1:
        raise InputError(f"momentum is {momentum}; expected 0 <= momentum < 1.")
    return momentum
