"""Losses: values from their definitions, one number an example, shared conventions of targets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.losses import NAMED, mean_loss, read_loss
from tests.tolerance import assert_close


def data(outputs=3, n=7):
    f = np.random.default_rng(0).normal(size=(n, outputs)) * 2
    labels = np.arange(n) % outputs
    return jnp.asarray(f, jnp.result_type(float)), jnp.eye(outputs)[labels], labels


def test_values_are_those_of_optax():
    f, y, labels = data()
    margins = (2 * y - 1) * f
    expected = {
        "squared": optax.l2_loss(f, y).sum(1),
        "cross_entropy": optax.softmax_cross_entropy_with_integer_labels(f, jnp.asarray(labels)),
        "logistic": jnp.log1p(jnp.exp(-margins)).sum(1),
        "hinge": optax.hinge_loss(f, 2 * y - 1).sum(1),
        "huber": optax.huber_loss(f, y).sum(1),
    }
    assert expected.keys() == NAMED.keys()
    for name, values in expected.items():
        assert_close(NAMED[name](f, y), values)


@pytest.mark.parametrize("name", ["cross_entropy", "logistic", "hinge"])
def test_centred_and_one_hot_targets_are_the_same_to_classification_losses(name):
    f, y, _ = data()
    for loss in (NAMED[name], jax.grad(lambda f, y: mean_loss(NAMED[name], f, y))):
        assert_close(loss(f, y - 1 / 3), loss(f, y))


def test_one_output_takes_the_side_of_its_targets_sign():
    f = jnp.array([[0.3], [-2.0]])
    for side in (1.0, -1.0):
        y = jnp.full((2, 1), 0.5 * side)
        np.testing.assert_allclose(
            NAMED["hinge"](f, y), np.maximum(0, 1 - side * np.asarray(f)[:, 0]), rtol=1e-6
        )
        np.testing.assert_allclose(
            NAMED["logistic"](f, y), np.log1p(np.exp(-side * np.asarray(f)[:, 0])), rtol=1e-6
        )


def test_labels_of_zero_and_one_are_two_sides():
    f, y = jnp.array([[0.3], [-2.0]]), jnp.array([[0.0], [1.0]])
    for name in ("hinge", "logistic"):
        assert_close(NAMED[name](f, y), NAMED[name](f, 2 * y - 1))


def test_the_mean_is_over_examples_and_the_sum_over_outputs():
    f, y, _ = data()
    by_output = optax.l2_loss
    expected = float(((f - y) ** 2).sum() / (2 * len(f)))
    assert float(mean_loss(by_output, f, y)) == pytest.approx(expected, rel=1e-6)
    assert float(mean_loss(read_loss("squared"), f, y)) == pytest.approx(expected, rel=1e-6)


def test_a_loss_that_averages_is_refused_and_unknown_names_are_told_the_known():
    f, y, _ = data()
    with pytest.raises(InputError, match=r"has shape \(\); expected one number an example"):
        mean_loss(lambda f, y: jnp.mean((f - y) ** 2), f, y)
    with pytest.raises(InputError, match=r"targets have shape \(3,\).*y\[:, None\]"):
        mean_loss(NAMED["squared"], jnp.zeros((3, 1)), jnp.arange(3.0))
    with pytest.raises(InputError, match="squared, cross_entropy"):
        read_loss("mse")
    with pytest.raises(InputError, match="must be a name"):
        read_loss(3)
    with pytest.raises(InputError, match="logistic"):
        ntk.losses.cross_entropy(f[:, :1], y[:, :1])
    with pytest.raises(InputError, match="delta=0"):
        ntk.losses.Huber(0)


def test_token_cross_entropy_is_the_mean_over_positions_that_have_a_target():
    f, _, _ = data(outputs=12, n=3)
    tokens = np.array([[0, 3, 1], [2, 2, 0], [1, 0, 3]])
    targets = jnp.eye(4, dtype=f.dtype)[tokens].at[1, 2].set(0).at[2].set(0)
    loss = ntk.losses.TokenCrossEntropy(4)
    scores = jax.nn.log_softmax(f.reshape(3, 3, 4), axis=2)
    each = -jnp.take_along_axis(scores, tokens[..., None], axis=2)[..., 0]
    expected = jnp.stack([each[0].mean(), each[1, :2].mean(), jnp.zeros_like(f[0, 0])])
    assert_close(loss(f, targets.reshape(3, 12)), expected)
    one = ntk.losses.TokenCrossEntropy(12)(f, jnp.eye(12, dtype=f.dtype)[:3])
    assert_close(one, ntk.losses.cross_entropy(f, jnp.eye(12, dtype=f.dtype)[:3]))
    with pytest.raises(InputError, match="whole number of positions"):
        ntk.losses.TokenCrossEntropy(5)(f, f)
    with pytest.raises(InputError, match="at least 2"):
        ntk.losses.TokenCrossEntropy(1)
