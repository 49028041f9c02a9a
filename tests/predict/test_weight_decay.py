"""Weight decay and every kind of momentum, against a linear model trained in parameter space."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

from ntk_lab.errors import InputError, StabilityError
from ntk_lab.losses import cross_entropy, mean_loss, squared
from ntk_lab.predict import gradient_descent, gradient_flow, max_learning_rate
from ntk_lab.predict.momentum_flow import oscillator_factors
from ntk_lab.predict.nesterov import nesterov_factors
from tests.predict.problems import means, random_problem
from tests.tolerance import assert_close

METHODS = [(0.0, False), (0.7, False), (0.7, True)]


class Linear:
    """A model with more parameters than examples, or fewer, and an offset that no weight moves."""

    def __init__(self, features=9, n=6, n_test=4, outputs=2, seed=0):
        rng = np.random.default_rng(seed)
        self.x, self.x_test = (rng.normal(size=(rows, features)) for rows in (n, n_test))
        self.start = rng.normal(size=(features, outputs))
        self.offset = 0.5
        self.y = np.eye(outputs)[np.arange(n) % outputs]

    def outputs(self, weights):
        """Means on both sets; as a linearized network, ``f0 + J (theta - theta_0)``."""
        return self.x @ weights + self.offset, self.x_test @ weights + self.offset

    def arguments(self, decay_to):
        f0 = dict(zip(("f0_train", "f0_test"), self.outputs(self.start), strict=True))
        if decay_to == "zero":
            f0 |= {"jvp_train": self.x @ self.start, "jvp_test": self.x_test @ self.start}
        kernels = self.x @ self.x.T, self.y, self.x_test @ self.x.T
        return kernels, {"decay_to": decay_to, **f0}

    def gradient(self, weights, decay, decay_to, loss=squared):
        """Of the penalized loss, by the weights."""
        reference = self.start if decay_to == "initial" else 0 * self.start
        x, y = jnp.asarray(self.x), jnp.asarray(self.y)
        slope = jax.grad(lambda w: mean_loss(loss, x @ w + self.offset, y))(jnp.asarray(weights))
        return slope + decay * (weights - reference)


def optax_path(model, rate, momentum, nesterov, decay, decay_to, steps, loss=squared):
    reference = model.start if decay_to == "initial" else 0 * model.start
    optimizer = optax.chain(
        optax.add_decayed_weights(decay), optax.sgd(rate, momentum or None, nesterov)
    )

    @jax.jit
    def update(weights, state):
        slope = model.gradient(weights, 0.0, decay_to, loss)
        updates, state = optimizer.update(slope, state, weights - reference)
        return optax.apply_updates(weights, updates), state

    weights = jnp.asarray(model.start)
    state, path = optimizer.init(weights), [weights]
    for _ in range(steps):
        weights, state = update(weights, state)
        path.append(weights)
    return path


@pytest.mark.parametrize("features", [9, 4])
@pytest.mark.parametrize("decay_to", ["zero", "initial"])
@pytest.mark.parametrize(("momentum", "nesterov"), METHODS)
def test_steps_with_weight_decay_are_those_of_optax(momentum, nesterov, decay_to, features):
    model, decay = Linear(features), 0.2
    kernels, options = model.arguments(decay_to)
    options |= {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    limit = max_learning_rate(kernels[0], momentum, nesterov=nesterov, weight_decay=decay)
    rate = 0.6 * float(limit)
    path = optax_path(model, rate, momentum, nesterov, decay, decay_to, 40)
    steps = [0, 1, 2, 5, 40]
    train, test = means(gradient_descent(*kernels, learning_rate=rate, **options).at(steps))
    for index, count in enumerate(steps):
        expected = model.outputs(path[count])
        assert_close(train[index], expected[0], factor=30)
        assert_close(test[index], expected[1], factor=30)


@pytest.mark.parametrize("decay_to", ["zero", "initial"])
@pytest.mark.parametrize(("momentum", "nesterov"), METHODS[1:])
def test_steps_with_weight_decay_on_a_loss_are_those_of_optax(momentum, nesterov, decay_to):
    model, decay = Linear(), 0.2
    kernels, options = model.arguments(decay_to)
    path = optax_path(model, 0.2, momentum, nesterov, decay, decay_to, 30, cross_entropy)
    descent = gradient_descent(
        *kernels,
        learning_rate=0.2,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=decay,
        loss="cross_entropy",
        **options,
    )
    for actual, wanted in zip(means(descent.at(30)), model.outputs(path[30]), strict=True):
        assert_close(actual, wanted, factor=30)


@pytest.mark.x64
@pytest.mark.parametrize("features", [9, 4])
@pytest.mark.parametrize("decay_to", ["zero", "initial"])
@pytest.mark.parametrize(
    ("loss", "momentum"), [("squared", 0.0), ("squared", 0.9), ("cross_entropy", 0.9)]
)
def test_flow_with_weight_decay_solves_the_equation_of_the_parameters(
    loss, momentum, decay_to, features
):
    model, decay, rate = Linear(features), 0.2, 0.3
    kernels, options = model.arguments(decay_to)
    if momentum:
        options |= {"momentum": momentum, "learning_rate": rate}
    shape, chosen = model.start.shape, {"squared": squared, "cross_entropy": cross_entropy}[loss]
    force = jax.jit(lambda w: model.gradient(w, decay, decay_to, chosen))

    def slope(_, z):
        if not momentum:
            return -np.ravel(force(z.reshape(shape)))
        w, v = z.reshape(2, *shape)
        return np.concatenate([v, -(force(w) + (1 - momentum) * v) / rate]).ravel()

    first = np.stack([model.start, 0 * model.start]) if momentum else model.start
    times = [0.1, 1.0, 8.0]
    solution = solve_ivp(
        slope, (0, 8), first.ravel(), method="DOP853", t_eval=times, rtol=1e-11, atol=1e-12
    )
    flow = gradient_flow(*kernels, weight_decay=decay, loss=loss, **options)
    train, test = means(flow.at(times))
    for index in range(len(times)):
        weights = solution.y[: model.start.size, index].reshape(shape)
        expected = model.outputs(weights)
        np.testing.assert_allclose(train[index], expected[0], rtol=0, atol=1e-9)
        np.testing.assert_allclose(test[index], expected[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("features", [9, 4])
@pytest.mark.parametrize("decay_to", ["zero", "initial"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_infinite_time_is_the_minimum_of_the_penalized_loss(momentum, decay_to, features):
    model, decay = Linear(features), 0.2
    kernels, options = model.arguments(decay_to)
    if momentum:
        options |= {"momentum": momentum, "learning_rate": 0.1}
    reference = model.start if decay_to == "initial" else 0 * model.start
    target = model.y - model.outputs(reference)[0]
    hessian = model.x.T @ model.x / 6 + decay * np.eye(features)
    weights = reference + np.linalg.solve(hessian, model.x.T @ target / 6)
    flow = gradient_flow(*kernels, weight_decay=decay, **options)
    for actual, wanted in zip(means(flow.at(np.inf)), model.outputs(weights), strict=True):
        assert_close(actual, wanted, factor=20)


def test_decay_to_the_initial_parameters_is_a_ridge_whose_fit_is_shown():
    p = random_problem()
    kernel = p.train_train.ntk
    f0 = {"f0_train": p.f0_train, "f0_test": p.f0_train}
    decayed = gradient_flow(kernel, p.y, kernel, weight_decay=0.05, decay_to="initial", **f0)
    ridge = gradient_flow(kernel, p.y, kernel, ridge=0.05 * len(kernel), **f0)
    for t in (0.5, 20.0, np.inf):
        fitted = ridge.at(t).test.mean
        for mean in means(decayed.at(t)):
            assert_close(mean, fitted, factor=10)


def test_covariance_under_decay_to_the_initial_parameters_is_that_of_the_ridge():
    p = random_problem()
    both = p.train_train, p.y, p.train_train, p.train_train
    decayed = gradient_flow(*both, weight_decay=0.05, decay_to="initial").at([1.0, np.inf])
    ridge = gradient_flow(*both, ridge=0.05 * len(p.y)).at([1.0, np.inf])
    assert_close(decayed.test.covariance, ridge.test.covariance, factor=20)
    assert_close(decayed.train.covariance, ridge.test.covariance, factor=20)


def test_no_decay_is_no_decay():
    p = random_problem()
    plain, zero = (gradient_flow(p.train_train.ntk, p.y, **k) for k in ({}, {"weight_decay": 0}))
    np.testing.assert_array_equal(plain.at(3.0).train.mean, zero.at(3.0).train.mean)


@pytest.mark.x64
@pytest.mark.parametrize(("momentum", "nesterov"), METHODS)
def test_limit_of_stability_with_decay_is_where_weights_stop_shrinking(momentum, nesterov):
    model, decay = Linear(4), 0.5
    kernels, options = model.arguments("zero")
    limit = float(max_learning_rate(kernels[0], momentum, nesterov=nesterov, weight_decay=decay))

    def last_moves(rate):
        path = optax_path(model, rate, momentum, nesterov, decay, "zero", 340)
        return [np.linalg.norm(path[k + 1] - path[k]) for k in (300, 339)]

    early, late = last_moves(1.02 * limit)
    assert late > early
    early, late = last_moves(0.98 * limit)
    assert late < early
    options |= {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    gradient_descent(*kernels, learning_rate=limit, **options)
    with pytest.raises(StabilityError):
        gradient_descent(*kernels, learning_rate=1.02 * limit, **options)


@pytest.mark.parametrize("momentum", [1e-3, 0.3, 0.9, 0.99])
def test_nesterov_modes_are_exact_for_a_learning_rate_off_by_rounding(momentum):
    critical = [((1 - momentum) / (1 + momentum)) ** 2, 1.0]
    end = 1.999 * (1 + momentum) / (1 + 2 * momentum)
    grid = np.concatenate([np.geomspace(1e-6, end, 40), critical])
    x = jnp.asarray(grid)
    eps = float(jnp.finfo(x.dtype).eps)
    steps = [0, 1, 2, 7, 50, 3000]

    def exact(x):
        m, learnt, velocity, rows = np.longdouble(momentum), 0 * x, 0 * x, []
        for k in range(max(steps) + 1):
            if k in steps:
                rows.append([np.float64(1 - learnt), np.float64(learnt)])
            slope = 1 - learnt
            velocity = x * slope + m * velocity
            learnt = learnt + x * slope + m * velocity
        return np.array(rows).swapaxes(0, 1)

    double = np.asarray(x).astype(np.longdouble)
    left, learnt = exact(double)
    ahead, behind = (exact(double * (1 + d))[0] for d in (1e-7, -1e-7))
    sensitivity = np.abs(ahead - behind) / 2e-7
    slow = double < 1e-3 * (1 - momentum) ** 2
    for row, count in enumerate(steps):
        found = nesterov_factors(x, jnp.asarray(count, jnp.int32), momentum)
        tolerance = 60 * eps * (1 + sensitivity[row]) / (1 - momentum)
        assert (np.abs(found[0] - left[row]) <= tolerance).all()
        assert (np.abs(found[1] - learnt[row]) <= tolerance).all()
        relative = 60 * eps / (1 - momentum)
        np.testing.assert_allclose(found[1][slow], learnt[row][slow], rtol=relative)


@pytest.mark.x64
def test_nesterov_in_float32_does_not_lose_small_steps():
    p = random_problem(n=20, condition=10.0)
    kernel = p.train_train.ntk.astype(np.float32)
    steps = 2_000_000_000
    descent = gradient_descent(kernel, p.y, learning_rate=1e-9, momentum=0.9, nesterov=True)
    flow = gradient_flow(kernel.astype(np.float64), p.y).at(1e-8 * steps)
    assert_close(descent.at(steps).train.mean, flow.train.mean)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2499999, 0.25, 0.2500001, 3.0, 1e6])
def test_a_mode_with_momentum_is_a_damped_oscillator(rate):
    # learning_rate 1 and momentum 0 are critically damped at a rate of 1/4
    t = jnp.asarray([0.0, 0.3, 5.0, 60.0])
    one = jnp.asarray(1.0)
    left, learnt = jax.vmap(lambda t: oscillator_factors(jnp.asarray(rate), t, one, 0.0))(t)
    root = np.sqrt(complex(0.25 - rate))
    times = np.asarray(t, np.float64)
    swing = np.sinh(root * times) / (2 * root) if root else times / 2
    expected = (np.exp(-times / 2) * (np.cosh(root * times) + swing)).real
    eps = float(jnp.finfo(left.dtype).eps)
    tolerance = 100 * eps * (1 + rate**0.5)
    np.testing.assert_allclose(left, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(learnt, 1 - expected, rtol=0, atol=tolerance)


@pytest.mark.x64
def test_derivatives_by_decay_momentum_and_rate_match_finite_differences():
    model = Linear()
    kernels, options = model.arguments("zero")

    def outputs(decay, rate):
        flow = gradient_flow(
            *kernels, weight_decay=decay, momentum=0.9, learning_rate=rate, **options
        )
        descent = gradient_descent(
            *kernels, weight_decay=decay, momentum=0.5, nesterov=True, learning_rate=rate, **options
        )
        return flow.at(2.0).test.mean, descent.at(9).test.mean

    jax.test_util.check_grads(
        outputs, (jnp.asarray(0.2), jnp.asarray(0.3)), order=1, modes=("fwd", "rev"), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "pass jvp_train.*decay_to='initial'"),
        ({"jvp_train": np.ones((8, 2))}, "pass jvp_train"),
        ({"jvp_train": np.ones((8, 3)), "jvp_test": np.ones((5, 2))}, r"jvp_train has shape"),
        ({"decay_to": "start"}, "decay_to is 'start'"),
        ({"decay_to": "initial", "jvp_train": np.ones((8, 2))}, "are for decay towards zero"),
        ({"weight_decay": 0.0, "jvp_train": np.ones((8, 2))}, "weight_decay is zero"),
        ({"weight_decay": -1.0}, r"weight_decay is -1\.0"),
        ({"weight_decay": np.inf}, "one finite number"),
    ],
)
@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_weight_decay_that_does_not_fit_is_named(options, message, loss):
    p = random_problem()
    with pytest.raises(InputError, match=message):
        gradient_flow(
            p.train_train.ntk, p.y, p.test_train.ntk, loss=loss, **({"weight_decay": 0.1} | options)
        )


def test_random_parameters_do_not_decay_to_zero():
    p = random_problem()
    with pytest.raises(InputError, match="no formula for random ones"):
        gradient_flow(p.train_train, p.y, weight_decay=0.1)
