"""One small problem, and the plain Python loop that every way of training is compared with."""

import jax
import jax.numpy as jnp
import optax

import ntk_lab as ntk

N, D, C, SEEDS = 12, 3, 2, 3


def data():
    """Training inputs and targets, and test inputs."""
    keys = jax.random.split(jax.random.key(1), 3)
    x, y = jax.random.normal(keys[0], (N, D)), jax.random.normal(keys[1], (N, C))
    return x, y, jax.random.normal(keys[2], (5, D))


def smooth():
    """One hidden layer without kinks."""
    return ntk.nn.Sequential(ntk.nn.Dense(7, b_std=0.3), ntk.nn.Tanh(), ntk.nn.Dense(C))


def drawn(net, seeds=SEEDS, shape=(D,)):
    """Initial parameters with seeds on the first axis."""
    return jax.vmap(lambda key: net.init(key, shape))(jax.random.split(jax.random.key(0), seeds))


def seed(params, s):
    return jax.tree.map(lambda p: p[s], params)


def plain_loop(f, params, x, y, optimizer, steps, loss, batches=None):
    """Parameters before the first and after each update."""
    state, found = optimizer.init(params), [params]

    @jax.jit
    def update(params, state, x, y):
        value, grads = jax.value_and_grad(lambda p: loss(f(p, x), y).sum() / len(x))(params)
        told = optax.with_extra_args_support(optimizer)
        updates, state = told.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    # optax's own bias correction mixes dtypes, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        for step in range(steps):
            chosen = jnp.arange(len(x)) if batches is None else batches[step]
            params, state = update(params, state, x[chosen], y[chosen])
            found.append(params)
    return found
