"""Models as their libraries write them, trained with Adam and cross-entropy, under the lens."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.interop.models import relaxed_promotion

linen = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")
eqx = pytest.importorskip("equinox")

WIDTH, CLASSES = 16, 3
STATUSES = {"predicts", "undecided", "fails"}


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, training: bool = False):
        x = jnp.tanh(linen.Dense(WIDTH)(x))
        x = linen.BatchNorm(use_running_average=not training)(x)
        x = linen.Dropout(0.5, deterministic=not training)(x)
        return linen.Dense(CLASSES)(x)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(4, WIDTH, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.readout = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.readout(self.dropout(self.norm(nnx.tanh(self.hidden(x)))))


class Equinox(eqx.Module):
    hidden: object
    dropout: object
    readout: object

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.hidden = eqx.nn.Linear(4, WIDTH, key=first)
        self.dropout = eqx.nn.Dropout(0.5)
        self.readout = eqx.nn.Linear(WIDTH, CLASSES, key=second)

    def __call__(self, x):
        return self.readout(self.dropout(jnp.tanh(self.hidden(x))))


def adapted(library):
    key = jax.random.key(0)
    if library == "nnx":
        return ntk.interop.from_nnx(Nnx(nnx.Rngs(0)))
    if library == "equinox":
        return ntk.interop.from_equinox(Equinox(key))
    module = Linen()
    with relaxed_promotion():
        variables = module.init(key, jnp.ones((1, 4), jnp.float32))
    return ntk.interop.from_linen(module, variables)


def data(one_hot=False):
    x = np.random.default_rng(0).normal(size=(36, 4)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    y = np.eye(CLASSES, dtype=x.dtype)[labels] if one_hot else labels
    return (x[:16], y[:16]), (x[16:], y[16:])


@cache
def compared(library, one_hot=False):
    f, params = adapted(library)
    with relaxed_promotion():
        return ntk.compare_model(
            f, params, *data(one_hot), optimizer=optax.adam(1e-2), loss="cross_entropy", steps=20
        )


@pytest.mark.slow
@pytest.mark.parametrize("library", ["linen", "nnx", "equinox"])
def test_unmodified_models_get_verdict_cause_and_horizon(library):
    c = compared(library)
    assert c.gaps == ("discretization", "feature learning", "optimizer")
    statuses = [c.verdicts[1, step].status for step in c.steps]
    assert set(statuses) <= {"predicts", "undecided", "fails"}
    # Adam is another way than gradient flow: by far the largest gap of so short a run.
    assert c.dominant(1, 20) == "optimizer"
    assert c.gap("optimizer")[0, 0, -1] > 0.01
    assert c.horizon().value >= c.predicts_until(1) > 0 or statuses[0] != "predicts"
    words = c.conclusion()
    assert f"the verdict is '{statuses[-1]}'; the largest gap is optimizer" in words
    assert "Horizon, until which the total gap is within" in words


@pytest.mark.slow
def test_one_hot_labels_are_class_numbers_to_the_loss():
    numbers, one_hot = compared("equinox"), compared("equinox", one_hot=True)
    for name in ("gap/total", "gap/optimizer", "drift"):
        np.testing.assert_allclose(
            numbers.measures[name], one_hot.measures[name], rtol=1e-4, err_msg=name
        )
