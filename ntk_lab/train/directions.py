"""Random directions in which slices of different networks' landscapes can be compared."""

import jax
import jax.numpy as jnp

from ntk_lab.empirical.ntk import Params


def random_direction(params: Params, key: jax.Array, filter_axis: int = -1) -> Params:
    """A random direction whose filters are as large as those of the parameters.

    Parameters
    ----------
    params
        Pytree of arrays.
    key
        Decides the direction.
    filter_axis
        Axis that counts filters (neurons, channels): the last for weights ``(inputs, outputs)``,
        the first for those of equinox. Each is scaled to the norm of the parameters' own.

    Returns
    -------
    Params
        Standard normal numbers, normalized filter by filter; zeros for parameters of fewer than two
        axes (biases, scales of normalizations), as in arXiv:1712.09913.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_lab.train import random_direction
    >>> d = random_direction({"w": 3 * jnp.ones((4, 2)), "b": jnp.ones(2)}, jax.random.key(0))
    >>> print(jnp.linalg.norm(d["w"], axis=0).round(), d["b"])
    [6. 6.] [0. 0.]
    """
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))
    found = []
    for leaf, k in zip(map(jnp.asarray, leaves), keys, strict=True):
        if leaf.ndim < 2 or not jnp.issubdtype(leaf.dtype, jnp.floating):
            found.append(jnp.zeros_like(leaf))
            continue
        axes = tuple(i for i in range(leaf.ndim) if i != filter_axis % leaf.ndim)
        drawn = jax.random.normal(k, leaf.shape, leaf.dtype)
        norms = [jnp.sqrt(jnp.sum(v * v, axis=axes, keepdims=True)) for v in (leaf, drawn)]
        found.append(drawn * (norms[0] / norms[1]))
    return jax.tree.unflatten(tree, found)
