"""Which modes are learnt by when."""

import jax
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.predict import gradient_descent, gradient_flow, learnt_modes, max_learning_rate
from tests.predict.problems import random_problem
from tests.tolerance import assert_close


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_the_prediction_is_the_sum_of_what_the_modes_have_learnt(momentum):
    p = random_problem()
    kernel = p.train_train.ntk
    f0 = {"f0_train": p.f0_train}
    options = {"momentum": momentum, "learning_rate": 0.5}
    flow = gradient_flow(kernel, p.y, **f0, **(options if momentum else {}))
    descent = gradient_descent(kernel, p.y, **f0, **options)
    values, vectors = np.linalg.eigh(kernel)
    for prediction, times in ((flow, np.array([0.0, 1.0, 30.0])), (descent, np.array([0, 2, 60]))):
        found = learnt_modes(prediction, times)
        assert_close(found.eigenvalue, values[::-1], factor=10)
        moved = np.asarray(prediction.at(times).train.mean) - p.f0_train
        shares = np.einsum("ni,tnc->tic", vectors[:, ::-1], moved)
        target = vectors[:, ::-1].T @ (p.y - p.f0_train)
        assert_close(found.share, shares[..., 0] / target[:, 0], factor=1000)
        assert_close(found.power.sum(), np.asarray(1.0))
        assert_close(np.abs(found.coefficient), np.abs(target), factor=100)
    assert_close(learnt_modes(flow, 1.0).time_scale, len(values) / values[::-1], factor=10)


def test_the_smallest_stability_limit_is_that_of_training():
    p = random_problem()
    for momentum, nesterov in ((0.0, False), (0.5, True)):
        descent = gradient_descent(
            p.train_train.ntk, p.y, learning_rate=0.1, momentum=momentum, nesterov=nesterov
        )
        limits = learnt_modes(descent, 1).max_learning_rate
        limit = max_learning_rate(p.train_train.ntk, momentum, nesterov=nesterov)
        assert_close(limits[0], limit, factor=10)
        assert (np.diff(limits) >= 0).all()


def test_modes_without_kernel_are_never_learnt():
    features = np.random.default_rng(0).normal(size=(6, 2))
    flow = gradient_flow(features @ features.T, np.ones((6, 1)))
    found = jax.jit(lambda t: learnt_modes(flow, t))(np.inf)
    assert_close(found.share, np.array([1, 1, 0, 0, 0, 0]), atol=0)
    assert np.isinf(found.time_scale[2:]).all()


def test_weight_decay_keeps_modes_from_being_learnt_to_the_end():
    flow = gradient_flow(
        np.diag([2.0, 20.0]), np.ones((2, 1)), weight_decay=1.0, decay_to="initial"
    )
    found = learnt_modes(flow, np.inf)
    assert_close(found.share, np.array([10 / 11, 1 / 2]))
    assert_close(found.time_scale, np.array([1 / 11, 1 / 2]))


def test_other_predictions_have_no_modes():
    with pytest.raises(InputError, match="LossFlow has no eigenmodes"):
        learnt_modes(ntk.predict.gradient_flow(np.eye(2), np.eye(2), loss="huber"), 1.0)
