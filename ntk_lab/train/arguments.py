"""Arguments that all ways of training have in common, checked."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.train.batches import check_batch
from ntk_lab.train.program import Model, count


def read_arrays(
    params: Any, x: Any, y: Any, x_test: Any, points: Any,
    read: Callable[[Any], Any] = jnp.asarray,
) -> tuple[Any, ...]:  # fmt: skip
    """All of them as arrays of JAX, or as ``read`` gives them."""
    return tuple(jax.tree.map(read, tree) for tree in (params, x, y, x_test, points))


def refuse_spread(params: Any) -> None:
    """Parameters on several devices need a mesh."""
    arrays = [leaf for leaf in jax.tree.leaves(params) if isinstance(leaf, jax.Array)]
    most = max((len(array.sharding.device_set) for array in arrays), default=1)
    if most > 1:
        raise InputError(
            f"params are spread over {most} devices; pass mesh= to train on these, or bring params "
            "to one by jax.device_get(params)."
        )


def numbers_of(seeds: Any, total: int) -> tuple[int, ...]:
    """Numbers of the seeds, default 0, 1, ..."""
    seeds = tuple(range(total)) if seeds is None else tuple(int(s) for s in seeds)
    if len(seeds) != total:
        raise InputError(f"got {len(seeds)} seeds for parameters of {total} networks.")
    if len(set(seeds)) != total:
        raise InputError(f"seeds={seeds} tell networks apart; give each another number.")
    return seeds


def check_finite_rate(learning_rate: Any, momentum: Any) -> None:
    """Refuse what is no gradient descent."""
    if not 0 < float(learning_rate) < float("inf") or not 0 <= float(momentum) < 1:
        raise InputError(
            f"learning_rate={learning_rate} must be positive and finite, momentum={momentum} from "
            "0 to below 1."
        )


def check(
    f: Model, params: Any, x_train: Any, y_train: jax.Array, x_test: Any, batch_size: int | None
) -> jax.Array:
    """The targets in the dtype of the outputs; refuses what does not fit."""
    n = count(x_train)
    if y_train.ndim != 2 or len(y_train) != n:
        raise InputError(
            f"{n} training examples have targets of shape {y_train.shape}; expected ({n}, outputs)."
        )
    if not jnp.issubdtype(y_train.dtype, jnp.floating):
        raise InputError(
            f"targets are {y_train.dtype}; expected floating-point numbers, one column an output. "
            "Class numbers become targets by jax.nn.one_hot(y, classes)."
        )
    if x_test is not None:
        one, other = (
            [(leaf.shape[1:], leaf.dtype.name) for leaf in jax.tree.leaves(x)]
            for x in (x_train, x_test)
        )
        if one != other:
            raise InputError(
                f"training examples have shape {_shown(one)}, test examples {_shown(other)}; they "
                "must be equal."
            )
    if batch_size is not None:
        check_batch(n, batch_size)
    counts = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(params)}
    if len(counts) != 1 or 0 in counts:
        raise InputError(
            "every array of params needs the seeds on its first axis, as many as in all others; "
            f"got first axes of {sorted(counts)}."
        )
    first = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape[1:], p.dtype), params)
    outputs = jax.eval_shape(f, first, x_train)
    if outputs.shape != y_train.shape:
        raise InputError(
            f"the network has outputs {outputs.shape} and the targets shape {y_train.shape}."
        )
    return y_train.astype(outputs.dtype)


def _shown(examples: list[tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{shape} of {dtype}" for shape, dtype in examples)
