"""Ensembles of real networks: all seeds in one compiled training loop, trajectories recorded."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ntk_lab.empirical.linearize import linearize
from ntk_lab.empirical.ntk import ntk
from ntk_lab.errors import InputError
from ntk_lab.losses import mean_loss, read_loss
from ntk_lab.train.schedule import check_record

Params = Any
Model = Callable[[Params, jax.Array], jax.Array]


class Trajectory(NamedTuple):
    """What was recorded, with seeds on the first axis and recorded steps on the second.

    Attributes
    ----------
    steps
        Step numbers, shape ``(T,)``. At step 0 nothing has been updated.
    train, test
        Outputs ``(S, T, n, C)``; ``test`` is None without test inputs.
    loss
        Training loss ``1/(2n) sum |f - y|^2`` over the whole training set, ``(S, T)``.
    ntk
        Empirical NTK on the kernel points, ``(S, T, m, m)``, of one combination ``<v, f>`` of the
        outputs, ``v`` a random unit vector a seed; None if not asked for.
    motion
        Relative parameter motion ``|theta_t - theta_0| / |theta_0|``, ``(S, T)``.
    """

    steps: jax.Array
    train: jax.Array
    test: jax.Array | None
    loss: jax.Array
    ntk: jax.Array | None
    motion: jax.Array


def squared_loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """``1/(2n) sum_i |f(x_i) - y_i|^2``: mean over examples, sum over outputs."""
    return jnp.sum((outputs - y) ** 2) / (2 * len(y))


def ensemble(
    f: Model,
    params: Params,
    x_train: jax.Array,
    y_train: jax.Array,
    x_test: jax.Array | None = None,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    record: tuple[int, ...] | None = None,
    batch_size: int | None = None,
    key: jax.Array | None = None,
    linearized: bool = False,
    kernel_points: jax.Array | None = None,
    seeds: tuple[int, ...] | None = None,
    loss="squared",
) -> Trajectory:
    """Train copies of a network from different initial parameters, in one compiled loop.

    Parameters
    ----------
    f
        Any ``f(params, x)`` with outputs ``(n, C)``.
    params
        Initial parameters, a pytree with seeds on the first axis of every leaf:
        ``jax.vmap(lambda k: net.init(k, shape))(jax.random.split(key, seeds))``.
    x_train, y_train, x_test
        Inputs ``(n, *shape)``, targets ``(n, C)``, and test inputs.
    optimizer
        Any optax optimizer. ``optax.sgd(lr)`` on the full batch is gradient descent, time
        ``t = lr * steps``.
    steps, record
        Number of updates, and after which of them to record; default log-spaced.
    batch_size, key
        Examples in each mini-batch, drawn without replacement in an order that is shuffled every
        epoch by ``key``, the same for all seeds; default the full batch. What does not fill a
        batch is left out of the epoch.
    linearized
        Train the network's linearization around its initial parameters instead.
    kernel_points
        Inputs on which to record the empirical NTK.
    seeds
        Numbers that tell the copies apart in what is random to each, default 0, 1, ...: a seed
        has the same numbers whichever others run beside it.

    Returns
    -------
    Trajectory
        In the dtype of the inputs.

    Raises
    ------
    InputError
        Shapes that do not fit, a batch larger than the data, or a batch without ``key``.

    Notes
    -----
    Cost per step and seed: one forward and one backward pass; three times that when linearized.
    Memory: ``S T (n_train + n_test) C`` recorded outputs and ``S`` copies of the parameters and
    of the optimizer's state.
    """
    record = check_record(steps, record)
    _check(f, params, x_train, y_train, x_test, batch_size)
    if batch_size is not None and key is None:
        raise InputError("mini-batches are drawn at random: pass key=jax.random.key(...).")
    batch = len(x_train) if batch_size is None else batch_size
    data = _Data(x_train, y_train, x_test, kernel_points)
    key = jax.random.key(0) if key is None else key
    count = len(jax.tree.leaves(params)[0])
    seeds = tuple(range(count)) if seeds is None else tuple(seeds)
    if len(seeds) != count:
        raise InputError(f"got {len(seeds)} seeds for parameters of {count} networks.")
    numbers = jnp.asarray(seeds, jnp.uint32)
    return _train_all(
        f, optimizer, batch, (linearized, read_loss(loss)), record, params, numbers, data, key
    )


class _Data(NamedTuple):
    x_train: jax.Array
    y_train: jax.Array
    x_test: jax.Array | None
    kernel_points: jax.Array | None


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _train_all(f, optimizer, batch, linearized, record, params, seeds, data, key) -> Trajectory:
    order_key, direction_key = jax.random.split(key)

    def one(params0, seed):
        shape, dtype = data.y_train.shape[1:], data.y_train.dtype
        direction = jax.random.normal(jax.random.fold_in(direction_key, seed), shape, dtype)
        v = direction / jnp.linalg.norm(direction)
        return _train_one(f, optimizer, batch, linearized, record, params0, v, data, order_key)

    recorded = jax.vmap(one)(params, seeds)
    return Trajectory(jnp.asarray(record), *recorded)


def _train_one(f, optimizer, batch, linearized, record, params0, v, data, key):
    linearized, loss = linearized
    model = linearize(f, params0) if linearized else f
    gradient = jax.grad(lambda p, x, y: mean_loss(loss, model(p, x), y))
    n = len(data.x_train)

    def step(index, carry):
        params, state = carry
        x, y = data.x_train, data.y_train
        if batch < n:
            chosen = _batch(key, index, n, batch)
            x, y = x[chosen], y[chosen]
        updates, state = optimizer.update(gradient(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    def segment(carry, bounds):
        carry = jax.lax.fori_loop(bounds[0], bounds[1], step, carry)
        return carry, _observe(model, carry[0], params0, v, data, loss)

    edges = jnp.asarray([0, *record])
    bounds = jnp.stack([edges[:-1], edges[1:]], axis=1)
    return jax.lax.scan(segment, (params0, optimizer.init(params0)), bounds)[1]


def _observe(model, params, params0, v, data, loss):
    train = model(params, data.x_train)
    test = None if data.x_test is None else model(params, data.x_test)
    kernel = None
    if data.kernel_points is not None:

        def combined(p, x):
            return model(p, x) @ v[:, None]

        kernel = ntk(combined, params, data.kernel_points, outputs="trace")
    moved = optax.tree.norm(optax.tree.sub(params, params0)) / optax.tree.norm(params0)
    return train, test, mean_loss(loss, train, data.y_train), kernel, moved


def _batch(key: jax.Array, step: jax.Array, n: int, batch: int) -> jax.Array:
    """Indices of the mini-batch of a step: a window of the epoch's own shuffle."""
    per_epoch = n // batch
    order = jax.random.permutation(jax.random.fold_in(key, step // per_epoch), n)
    return jax.lax.dynamic_slice(order, ((step % per_epoch) * batch,), (batch,))


def _check(f, params, x_train, y_train, x_test, batch_size) -> None:
    if y_train.ndim != 2 or len(y_train) != len(x_train):
        raise InputError(
            f"{len(x_train)} training examples have targets of shape {y_train.shape}; expected "
            f"({len(x_train)}, outputs)."
        )
    if x_test is not None and x_test.shape[1:] != x_train.shape[1:]:
        raise InputError(
            f"training examples have shape {x_train.shape[1:]} and test examples "
            f"{x_test.shape[1:]}; they must be equal."
        )
    if batch_size is not None and not 1 <= batch_size <= len(x_train):
        raise InputError(f"batch_size={batch_size} must be between 1 and n={len(x_train)}.")
    shape = jax.eval_shape(jax.vmap(f, (0, None)), params, x_train).shape[1:]
    if shape != y_train.shape:
        raise InputError(f"the network has outputs {shape} and the targets shape {y_train.shape}.")
