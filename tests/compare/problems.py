"""Tiny problems, and one training run computed plainly: no line shared with ``ntk_lab.compare``."""

import jax
import jax.numpy as jnp
import numpy as np

import ntk_lab as ntk
from ntk_lab.compare import Comparison

FLOAT = np.dtype(jnp.result_type(float))


def regression(outputs=1, n=10, n_test=6):
    """Smooth real targets of three-dimensional inputs, ``(train, test)``."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n + n_test, 3)).astype(FLOAT)
    y = np.stack([np.sin(x[:, 0] + k) * x[:, 1] for k in range(outputs)], axis=1)
    return (x[:n], y[:n]), (x[n:], y[n:])


def hidden(outputs=1):
    """One smooth hidden layer."""
    nn = ntk.nn
    return nn.Sequential(nn.Dense(8, b_std=0.3), nn.Erf(), nn.Dense(outputs, b_std=0.1))


def plain_run(net, train, test, *, rate, steps, seed, key=0):
    """Test outputs at the last step of flow, descent, linearized and real network, by plain loops.

    Also the outputs on the test set before training, and the relative kernel drift of a network
    with one output.
    """
    (x, y), (x_test, _) = train, test
    params = net.init(jax.random.fold_in(jax.random.key(key), seed), x.shape[1:], x.dtype)
    params0, n = params, len(x)
    f0, g0 = (np.asarray(net.apply(params, part), np.float64) for part in (x, x_test))

    k, k_test = (np.asarray(net.kernel(a, x).ntk, np.float64) for a in (x, x_test))
    values, vectors = np.linalg.eigh(k)
    decay = -np.expm1(-values * rate * steps / n) / values
    flow = g0 + k_test @ (vectors * decay) @ vectors.T @ (y - f0)

    f, descent = f0.copy(), g0.copy()
    for _ in range(steps):
        error = f - y
        f, descent = f - rate / n * k @ error, descent - rate / n * k_test @ error

    j, j_test = (_jacobian(net, params, part) for part in (x, x_test))
    f, linearized = f0.copy(), g0.copy()
    for _ in range(steps):
        pull = rate / n * np.einsum("ncp,nc->p", j, f - y)
        f, linearized = f - j @ pull, linearized - j_test @ pull

    def loss(p):
        return jnp.sum((net.apply(p, x) - y.astype(x.dtype)) ** 2) / (2 * n)

    gradient = jax.jit(jax.grad(loss))
    for _ in range(steps):
        params = jax.tree.map(lambda p, g: p - rate * g, params, gradient(params))
    network = np.asarray(net.apply(params, x_test), np.float64)

    before, after = (_jacobian(net, p, x)[:, 0] for p in (params0, params))
    drift = np.linalg.norm(after @ after.T - before @ before.T) / np.linalg.norm(before @ before.T)
    return {
        "start": g0, "flow": flow, "descent": descent, "linearized": linearized,
        "network": network, "drift": drift,
    }  # fmt: skip


def _jacobian(net, params, x):
    """Of every output by every parameter, ``(n, outputs, parameters)``."""
    leaves = jax.tree.leaves(jax.jit(jax.jacrev(net.apply))(params, x))
    flat = [np.asarray(leaf, np.float64).reshape(*leaf.shape[:2], -1) for leaf in leaves]
    return np.concatenate(flat, axis=2)


def made_up(*, seeds=4, optimizer=False, classes=True, parameterization="ntk", scale=1.0):
    """A Comparison with planted numbers, computed in no time."""
    rng = np.random.default_rng(5)
    widths, steps = (16, 64, 256), (1, 10, 100)
    shape = (3, seeds, 3)
    power = (np.asarray(widths)[:, None, None] / 16.0) ** -0.5
    gaps = {"discretization": 0.01, "finite-width kernel": 0.3 * power, "feature learning": 0.04}
    if optimizer:
        gaps["optimizer"] = 0.02
    measures = {"displacement": 1 + rng.random(shape)}
    for name, size in gaps.items():
        measures[f"gap/{name}"] = scale * size * (1 + 0.02 * rng.random(shape))
    measures["gap/total"] = measures["gap/finite-width kernel"] + measures["gap/discretization"]
    predictors = ["kernel flow", "kernel descent", "linearized", "network"]
    for name in predictors + ["optimizer"] * optimizer:
        measures[f"test_loss/{name}"] = rng.random(shape)
        if classes:
            measures[f"accuracy/{name}"] = rng.random(shape)
    for name in ("drift", "alignment", "motion", "train_loss"):
        measures[name] = rng.random(shape)
    settings = {
        "net": hidden().to_json(), "parameterization": parameterization, "learning_rate": 0.5,
        "learning_rate_of_width": [0.5, 0.5, 0.5], "stability_limit": 10.0, "train": 20,
        "test": 10, "dtype": "float32", "batch_size": None, "optimizer": optimizer, "key": 0,
    }  # fmt: skip
    times = 0.5 * np.asarray(steps, float)
    return Comparison(measures, widths, tuple(range(seeds)), steps, times, settings, 0.1, 0.95)
