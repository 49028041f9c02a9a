"""Which examples each mini-batch holds: a function of the key and the step alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError


def batch_order(key: jax.Array, n: int, batch_size: int, steps: int) -> np.ndarray:
    """Examples of each mini-batch that `ensemble` trains on with this ``key``.

    Every epoch has a shuffle of its own, cut into batches; what does not fill one is left out of
    the epoch. A simulation elsewhere that uses the same order sees the same data.

    Parameters
    ----------
    key
        As given to `ensemble`.
    n, batch_size, steps
        Training examples, those in each batch, and number of batches.

    Returns
    -------
    numpy.ndarray
        Row ``k`` holds the examples of the update from step ``k`` to ``k + 1``,
        ``(steps, batch_size)``, in the order in which they are stacked.

    Raises
    ------
    InputError
        A batch larger than the data.

    Examples
    --------
    >>> import jax
    >>> from ntk_lab.train import batch_order
    >>> order = batch_order(jax.random.key(0), n=6, batch_size=2, steps=3)
    >>> print(order.shape, sorted(order.flatten().tolist()))
    (3, 2) [0, 1, 2, 3, 4, 5]
    """
    check_batch(n, batch_size)
    epochs = -(-steps // (n // batch_size))
    shuffles = _shuffles(order_key(key), n, max(epochs, 1))
    kept = np.asarray(shuffles)[:, : n // batch_size * batch_size]
    return kept.reshape(-1, batch_size)[:steps]


def check_batch(n: int, batch_size: int) -> None:
    """Refuse sizes that no epoch could be cut into."""
    if not 1 <= batch_size <= n:
        raise InputError(f"batch_size={batch_size} must be between 1 and n={n}.")


def order_key(key: jax.Array) -> jax.Array:
    """What decides the order, apart from all else that a run's key decides."""
    return jax.random.split(key)[0]


def shuffle(key: jax.Array, epoch: Any, n: int) -> jax.Array:
    """All examples in the order of an epoch."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), n).astype(jnp.int32)


@compiled(static_argnums=(1, 2))
def _shuffles(key: jax.Array, n: int, epochs: int) -> jax.Array:
    return jax.lax.map(lambda epoch: shuffle(key, epoch, n), jnp.arange(epochs, dtype=jnp.int32))
