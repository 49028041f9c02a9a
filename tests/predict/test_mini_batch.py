"""Moments of mini-batch SGD against every choice of batches, and against simulation."""

from itertools import combinations, permutations, product

import numpy as np
import pytest

from ntk_lab.errors import InputError, NumericalError
from ntk_lab.predict import gradient_descent, stochastic_descent
from tests.predict.problems import random_problem
from tests.tolerance import assert_close


def choices(n, size, sampling, steps):
    """All sequences of batches, equally likely."""
    if sampling == "replacement":
        return product(list(product(range(n), repeat=size)), repeat=steps)
    if sampling == "independent":
        return product(list(combinations(range(n), size)), repeat=steps)
    per_epoch = n // size
    epochs = {
        tuple(tuple(sorted(p[i * size : (i + 1) * size])) for i in range(per_epoch))
        for p in permutations(range(n))
    }
    runs = product(sorted(epochs), repeat=-(-steps // per_epoch))
    return [sum(run, ())[:steps] for run in runs]


def train(p, rate, batches):
    kernel = np.concatenate([p.train_train.ntk, p.test_train.ntk])
    f = np.concatenate([p.f0_train, p.f0_test])
    for batch in batches:
        error = f[: len(p.y)] - p.y
        f = f - rate / len(batch) * sum(np.outer(kernel[:, i], error[i]) for i in batch)
    return f


def exact_moments(p, rate, size, sampling, steps):
    runs = np.array([train(p, rate, b) for b in choices(len(p.y), size, sampling, steps)])
    centred = runs - runs.mean(axis=0)
    return runs.mean(axis=0), np.einsum("kac,kbd->abcd", centred, centred) / len(runs)


def predicted(p, rate, size, sampling, steps):
    descent = stochastic_descent(
        p.train_train.ntk,
        p.y,
        p.test_train.ntk,
        learning_rate=rate,
        batch_size=size,
        sampling=sampling,
        f0_train=p.f0_train,
        f0_test=p.f0_test,
    )
    return descent.at(steps)


@pytest.mark.parametrize(
    ("sampling", "n", "size"),
    [("independent", 5, 2), ("independent", 4, 1), ("replacement", 3, 2)],
)
def test_independent_batches_have_exactly_the_moments_of_all_choices(sampling, n, size):
    p = random_problem(n=n, n_test=2)
    found = predicted(p, 0.9, size, sampling, [3, 0, 1])
    for index, steps in ((0, 3), (2, 1)):
        mean, covariance = exact_moments(p, 0.9, size, sampling, steps)
        assert_close(found.train.mean[index], mean[:n], factor=10)
        assert_close(found.test.mean[index], mean[n:], factor=10)
        assert_close(found.train.covariance[index], covariance[:n, :n], factor=10)
        assert_close(found.test.covariance[index], covariance[n:, n:], factor=10)
    assert not np.asarray(found.train.covariance[1]).any()


@pytest.mark.x64
@pytest.mark.parametrize(("n", "size", "steps"), [(4, 2, 3), (4, 2, 4), (5, 2, 4), (4, 1, 6)])
def test_shuffled_batches_have_the_moments_of_all_orders_to_leading_order(n, size, steps):
    p = random_problem(n=n, n_test=2)
    errors = []
    for rate in (2e-3, 1e-3):
        mean, covariance = exact_moments(p, rate, size, "shuffle", steps)
        found = predicted(p, rate, size, "shuffle", steps)
        full = gradient_descent(p.train_train.ntk, p.y, learning_rate=rate, f0_train=p.f0_train)
        drift = mean[:n] - np.asarray(full.at(steps).train.mean)
        gaps = [
            np.abs(found.train.mean - mean[:n]).max() / np.abs(drift).max(),
            np.abs(found.test.covariance - covariance[n:, n:]).max() / rate**2,
        ]
        errors.append(gaps)
    assert max(errors[0]) < 0.05
    # The drift of two batches an epoch has no higher orders.
    for coarse, fine in zip(*errors, strict=True):
        assert coarse < 1e-6 or coarse / fine == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize("sampling", ["shuffle", "independent", "replacement"])
def test_moments_are_those_of_simulated_sgd_on_a_linear_model(sampling):
    rng = np.random.default_rng(0)
    n, size, steps, runs, rate = 12, 4, 8, 20_000, 0.02
    x, x_test = rng.normal(size=(n, 20)), rng.normal(size=(3, 20))
    weights, y = rng.normal(size=20), rng.normal(size=n)
    start = weights.copy()
    weights = np.broadcast_to(weights, (runs, 20))
    for step in range(steps):
        if sampling == "replacement":
            batch = rng.integers(n, size=(runs, size))
        else:
            if sampling == "independent" or step % (n // size) == 0:
                order = rng.permuted(np.tile(np.arange(n), (runs, 1)), axis=1)
            place = 0 if sampling == "independent" else step % (n // size) * size
            batch = order[:, place : place + size]
        inputs = x[batch]
        error = np.einsum("rbd,rd->rb", inputs, weights) - y[batch]
        weights = weights - rate * np.einsum("rbd,rb->rd", inputs, error) / size
    drawn = weights @ x_test.T
    found = stochastic_descent(
        x @ x.T,
        y[:, None],
        x_test @ x.T,
        learning_rate=rate,
        batch_size=size,
        sampling=sampling,
        f0_train=(x @ start)[:, None],
        f0_test=(x_test @ start)[:, None],
    ).at(steps)
    covariance = np.asarray(found.test.covariance[:, :, 0, 0], np.float64)
    variance = np.diag(covariance)
    z = (drawn.mean(axis=0) - found.test.mean[:, 0]) / np.sqrt(variance / runs)
    assert np.abs(z).max() < 4
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / runs)
    # Higher orders in the learning rate, which only shuffling leaves out, are within 5%.
    known = 0.05 * np.sqrt(np.outer(variance, variance)) if sampling == "shuffle" else 0
    assert (np.abs(np.cov(drawn.T) - covariance) < 4.5 * error + known).all()


@pytest.mark.parametrize("sampling", ["shuffle", "independent"])
def test_the_full_batch_has_no_noise(sampling):
    p = random_problem(n=6, n_test=3)
    found = predicted(p, 0.5, 6, sampling, 7)
    full = gradient_descent(
        p.train_train.ntk,
        p.y,
        p.test_train.ntk,
        learning_rate=0.5,
        f0_train=p.f0_train,
        f0_test=p.f0_test,
    ).at(7)
    assert_close(found.test.mean, full.test.mean)
    assert not np.asarray(found.test.covariance).any()
    assert not np.asarray(found.train.covariance).any()


def test_shuffling_cancels_most_noise_at_the_end_of_an_epoch():
    p = random_problem(n=8, n_test=3)
    shuffled, independent = (
        predicted(p, 0.01, 2, s, [3, 4]).test.covariance for s in ("shuffle", "independent")
    )
    spread = [float(np.einsum("taacc->t", np.asarray(c))[1]) for c in (shuffled, independent)]
    assert spread[0] < 0.01 * spread[1]


@pytest.mark.parametrize("size", [0, 9, 2.0, True])
def test_batches_that_do_not_fit_are_named(size):
    p = random_problem()
    with pytest.raises(InputError, match=r"batch_size=.*from 1 to n=8"):
        stochastic_descent(p.train_train.ntk, p.y, learning_rate=0.1, batch_size=size)
    with pytest.raises(InputError, match="sampling='epoch'"):
        stochastic_descent(
            p.train_train.ntk, p.y, learning_rate=0.1, batch_size=2, sampling="epoch"
        )


def test_noise_that_grows_beyond_all_numbers_is_said():
    p = random_problem()
    descent = stochastic_descent(p.train_train.ntk, p.y, learning_rate=50.0, batch_size=2)
    with pytest.raises(NumericalError, match="no longer finite after 5000 steps"):
        descent.at([1, 5000])
