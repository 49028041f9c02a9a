"""Losses other than squared error: the differential equation and the steps themselves."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

from ntk_lab import losses
from ntk_lab.errors import ConvergenceError, InputError, NumericalError
from ntk_lab.predict import GradientFlow, gradient_descent, gradient_flow
from tests.predict.problems import means, random_problem
from tests.tolerance import assert_close

FOLDER = Path(__file__).parents[1] / "golden" / "predict"
RUNS = json.loads((FOLDER / "predict.json").read_text())["gradient_descent"]
# The golden losses are means over examples and outputs.
GOLDEN_LOSSES = {
    "xent": lambda f, y: -(jax.nn.log_softmax(f, axis=-1) * y).mean(axis=1),
    "mse": lambda f, y: 0.5 * ((f - y) ** 2).mean(axis=1),
}
TOLERANCE = {jnp.dtype("float64"): 1e-9, jnp.dtype("float32"): 3e-5}[jnp.result_type(float)]


def classes_of(p):
    return np.eye(p.y.shape[1])[p.y.argmax(axis=1)]


def blocks_of(p, axes=False):
    """Kernels as ``(n, n)``, or with output axes, and what is given besides."""
    kernels = [p.train_train.ntk, p.test_train.ntk]
    if axes:
        mixing = np.array([[1.0, 0.3], [0.3, 0.7]])
        kernels = [np.einsum("ab,cd->abcd", k, mixing) for k in kernels]
    return kernels, {"f0_train": p.f0_train, "f0_test": p.f0_test}


def force_of(p, loss, axes=False):
    """``Theta grad L`` on train and test outputs, in NumPy but for the loss."""
    (dd, td), _ = blocks_of(p, axes)
    kernel, n = np.concatenate([dd, td]), len(p.y)
    chosen = losses.read_loss(loss)
    y = jnp.asarray(classes_of(p))
    slope = jax.jit(jax.grad(lambda f: chosen(f, y).sum() / n))

    def force(f):
        g = np.asarray(slope(jnp.asarray(f[:n])))
        return np.einsum("abcd,bd->ac", kernel, g) if axes else kernel @ g

    return force, np.concatenate([p.f0_train, p.f0_test])


def integrate(force, start, t, inertia=0.0, friction=1.0):
    """The differential equation by scipy, of second order with inertia."""

    def slope(_, z):
        if not inertia:
            return -force(z.reshape(start.shape)).ravel()
        f, v = z.reshape(2, *start.shape)
        return np.concatenate([v.ravel(), (-(force(f) + friction * v) / inertia).ravel()])

    first = np.concatenate([start.ravel(), 0 * start.ravel()]) if inertia else start.ravel()
    solution = solve_ivp(slope, (0, t), first, method="DOP853", rtol=1e-11, atol=1e-12)
    return solution.y[: start.size, -1].reshape(start.shape)


@pytest.mark.x64
@pytest.mark.parametrize("run", RUNS, ids=[r["key"] for r in RUNS])
def test_flow_matches_stored_solutions(run):
    with np.load(FOLDER / "predict.npz") as arrays:
        get = {k: arrays[f"gd/{k}"] for k in ("ntk_dd", "ntk_td", "y_train")}
        f0 = {"f0_train": arrays["gd/fx_train_0"], "f0_test": arrays["gd/fx_test_0"]}
        expected = [arrays[f"{run['key']}/{part}_scipy"] for part in ("train", "test")]
    options = {"loss": GOLDEN_LOSSES[run["loss"]]}
    if run["momentum"] is not None:
        options |= {"momentum": run["momentum"], "learning_rate": run["learning_rate"]}
    flow = gradient_flow(get["ntk_dd"], get["y_train"], get["ntk_td"], **f0, **options)
    times = run["learning_rate"] * np.asarray(run["times"])
    for actual, wanted in zip(means(flow.at(times)), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-9)


@pytest.mark.x64
@pytest.mark.parametrize(
    ("loss", "axes"),
    [("cross_entropy", True), ("logistic", False), (losses.Huber(0.3), False)],
    ids=str,
)
def test_flow_solves_the_differential_equation(loss, axes):
    p = random_problem(n=6, n_test=3)
    kernels, f0 = blocks_of(p, axes)
    flow = gradient_flow(kernels[0], classes_of(p), kernels[1], loss=loss, **f0)
    force, start = force_of(p, loss, axes)
    train, test = means(flow.at([40.0, 0.0, 2.0]))
    np.testing.assert_array_equal(train[1], p.f0_train)
    for index, t in ((0, 40.0), (2, 2.0)):
        expected = integrate(force, start, t)
        np.testing.assert_allclose(train[index], expected[:6], rtol=0, atol=1e-9)
        np.testing.assert_allclose(test[index], expected[6:], rtol=0, atol=1e-9)


@pytest.mark.x64
def test_flow_with_momentum_solves_the_equation_of_second_order():
    p = random_problem(n=6, n_test=3)
    kernels, f0 = blocks_of(p)
    flow = gradient_flow(
        kernels[0],
        classes_of(p),
        kernels[1],
        loss="cross_entropy",
        momentum=0.9,
        learning_rate=0.3,
        **f0,
    )
    expected = integrate(*force_of(p, "cross_entropy"), 5.0, inertia=0.3, friction=0.1)
    for actual, wanted in zip(means(flow.at(5.0)), np.split(expected, [6]), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-9)


@pytest.mark.x64
def test_flow_with_momentum_is_where_small_steps_with_momentum_go():
    p = random_problem(n=6, n_test=3)
    kernels, f0 = blocks_of(p)
    options = {"loss": "cross_entropy", "momentum": 0.5, **f0}
    gaps = []
    for rate in (0.02, 0.01):
        flow = gradient_flow(*_fit(p, kernels), learning_rate=rate, **options).at(4.0)
        steps = gradient_descent(*_fit(p, kernels), learning_rate=rate, **options)
        steps = steps.at(round(4.0 / rate))
        gaps.append(np.linalg.norm(flow.test.mean - steps.test.mean))
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.1)


def _fit(p, kernels):
    return kernels[0], classes_of(p), kernels[1]


def test_flow_of_the_squared_loss_as_a_user_function_is_the_closed_form():
    p = random_problem()
    kernels, f0 = blocks_of(p)
    closed = gradient_flow(*_fit(p, kernels), **f0, ridge=0.1)
    assert isinstance(closed, GradientFlow)
    solved = gradient_flow(*_fit(p, kernels), **f0, ridge=0.1, loss=lambda f, y: (f - y) ** 2 / 2)
    times = np.array([[0.1, 3.0], [100.0, 0.0]])
    for actual, wanted in zip(means(solved.at(times)), means(closed.at(times)), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=TOLERANCE)
    assert solved.diagnostics.ridge == closed.diagnostics.ridge
    assert_close(
        solved.diagnostics.condition_number, closed.diagnostics.condition_number, factor=99
    )


@pytest.mark.x64
def test_cross_entropy_goes_on_for_ever_at_the_cost_of_a_logarithm():
    p = random_problem(n=6, n_test=3)
    kernels, f0 = blocks_of(p)
    flow = gradient_flow(*_fit(p, kernels), **f0, loss="cross_entropy")
    train = flow.at([1e3, 1e6, 1e9], max_steps=1000).train.mean
    loss = [losses.mean_loss(losses.cross_entropy, f, jnp.asarray(classes_of(p))) for f in train]
    # The loss falls as 1 / t once all are separated.
    assert float(loss[1] / loss[0]) == pytest.approx(1e-3, rel=0.3)
    assert float(loss[2] / loss[1]) == pytest.approx(1e-3, rel=0.05)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("loss", ["cross_entropy", "hinge", "squared"])
def test_steps_are_those_of_optax_on_a_linear_model(loss, momentum, nesterov):
    rng = np.random.default_rng(0)
    x, x_test = (jnp.asarray(rng.normal(size=(n, 10))) for n in (6, 3))
    y = jnp.eye(3)[jnp.arange(6) % 3]
    weights = start = jnp.asarray(rng.normal(size=(10, 3)))
    optimizer = optax.sgd(0.2, momentum or None, nesterov)
    chosen = losses.read_loss(loss)

    @jax.jit
    def update(weights, state):
        gradient = jax.grad(lambda w: losses.mean_loss(chosen, x @ w, y))(weights)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(weights, updates), state

    state, path = optimizer.init(weights), []
    for _ in range(31):
        path.append(weights)
        weights, state = update(weights, state)
    descent = gradient_descent(
        x @ x.T,
        y,
        x_test @ x.T,
        learning_rate=0.2,
        momentum=momentum,
        nesterov=nesterov,
        loss=loss,
        f0_train=x @ start,
        f0_test=x_test @ start,
    )
    steps = np.array([[30, 0, 2], [1, 30, 7]])
    train, test = means(descent.at(steps))
    for index in np.ndindex(steps.shape):
        assert_close(train[index], x @ path[steps[index]], factor=20)
        assert_close(test[index], x_test @ path[steps[index]], factor=20)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_with_output_axes_equal_a_loop(momentum):
    p = random_problem(n=6, n_test=3)
    kernels, f0 = blocks_of(p, axes=True)
    descent = gradient_descent(
        *_fit(p, kernels), loss="logistic", learning_rate=0.5, momentum=momentum, **f0
    )
    force, f = force_of(p, "logistic", axes=True)
    velocity = 0
    for _ in range(9):
        velocity = force(f) + momentum * velocity
        f = f - 0.5 * velocity
    for actual, wanted in zip(means(descent.at(9)), np.split(f, [6]), strict=True):
        assert_close(actual, wanted, factor=10)


@pytest.mark.x64
def test_halving_the_learning_rate_halves_the_gap_to_the_flow():
    p = random_problem()
    kernels, f0 = blocks_of(p)
    flow = gradient_flow(*_fit(p, kernels), loss="cross_entropy", **f0).at(6.0).test.mean
    gaps = []
    for rate in (0.02, 0.01):
        descent = gradient_descent(
            *_fit(p, kernels), loss="cross_entropy", learning_rate=rate, **f0
        )
        gaps.append(np.linalg.norm(descent.at(round(6.0 / rate)).test.mean - flow))
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.1)


@pytest.mark.slow
@pytest.mark.x64
def test_flow_on_a_loss_crosses_jit_and_has_derivatives():
    p = random_problem(n=5, n_test=2)
    kernels, f0 = blocks_of(p)
    flow = gradient_flow(*_fit(p, kernels), loss="cross_entropy", **f0)

    def output(flow, t):
        return flow.at(t).test.mean[1, 0]

    value, (by_flow, slope) = jax.jit(jax.value_and_grad(output, argnums=(0, 1), allow_int=True))(
        flow, jnp.asarray(0.5)
    )
    assert_close(value, output(flow, 0.5))
    ahead, behind = (output(flow, 0.5 + d) for d in (1e-3, -1e-3))
    assert float(slope) == pytest.approx(float(ahead - behind) / 2e-3, rel=1e-6)
    assert np.isfinite(by_flow.space.kernel).all()


def test_descent_on_a_loss_crosses_jit_vmap_and_has_forward_derivatives():
    p = random_problem(n=5, n_test=2)
    kernels, f0 = blocks_of(p)

    def outputs(rate, steps=1):
        descent = gradient_descent(
            *_fit(p, kernels), loss="cross_entropy", learning_rate=rate, **f0
        )
        return descent.at(steps).test.mean

    rates = jnp.asarray([0.5, 0.25])
    batched = jax.jit(jax.vmap(lambda rate: outputs(rate, 7)))(rates)
    for index in range(2):
        assert_close(batched[index], outputs(rates[index], 7))
    force, start = force_of(p, "cross_entropy")
    assert_close(jax.jacfwd(outputs)(rates[0]), -force(start)[5:], factor=10)


def test_targets_of_any_convention_train_alike_under_cross_entropy():
    p = random_problem()
    kernels, f0 = blocks_of(p)
    one_hot = classes_of(p)
    results = [
        gradient_descent(kernels[0], y, kernels[1], loss="cross_entropy", learning_rate=0.5, **f0)
        for y in (one_hot, one_hot - 0.5)
    ]
    assert_close(*(r.at(20).test.mean for r in results))


def test_divergence_and_stiffness_are_said_and_the_rest_is_kept():
    p = random_problem()
    kernels, f0 = blocks_of(p)
    wild = gradient_descent(
        *_fit(p, kernels), **f0, loss=lambda f, y: (f - y) ** 4, learning_rate=1e3
    )
    with pytest.raises(NumericalError, match=r"no longer finite after 90 steps.*Lower"):
        wild.at([0, 90, 100])
    flow = gradient_flow(*_fit(p, kernels), **f0, loss="huber")
    with pytest.raises(ConvergenceError, match=r"max_steps=20\).*stiff") as stopped:
        flow.at([1e-3, 1e4], max_steps=20)
    train = stopped.value.result.train.mean
    assert np.isfinite(train[0]).all()
    assert np.isnan(train[1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "absolute"}, "no loss is called 'absolute'"),
        ({"loss": lambda f, y: jnp.mean((f - y) ** 2)}, r"has shape \(\)"),
        ({"momentum": 0.9}, r"momentum=0\.9 and learning_rate=None.*both or neither"),
        ({"learning_rate": 0.1}, "both or neither"),
        ({"momentum": 0.9, "learning_rate": -1.0}, "learning_rate is -1"),
        ({"loss": "huber", "f0_train": np.ones((8, 2))}, "given together"),
    ],
)
def test_losses_and_momentum_that_do_not_fit_are_named(options, message):
    p = random_problem()
    with pytest.raises(InputError, match=message):
        gradient_flow(p.train_train.ntk, p.y, p.test_train.ntk, **options)


def test_what_has_no_meaning_for_other_losses_is_refused():
    p = random_problem()
    with pytest.raises(InputError, match="not Gaussian"):
        gradient_flow(p.train_train, p.y, loss="huber")
    with pytest.raises(InputError, match="t is infinite"):
        gradient_flow(p.train_train.ntk, p.y, loss="huber").at([1.0, np.inf])
    with pytest.raises(InputError, match="got one output"):
        gradient_flow(p.train_train.ntk, p.y[:, :1], loss="cross_entropy")
    with pytest.raises(NumericalError, match="not positive semi-definite"):
        gradient_flow(p.train_train.ntk - np.eye(8), p.y, loss="huber")
    with pytest.raises(InputError, match="not a diffrax solver"):
        gradient_flow(p.train_train.ntk, p.y, loss="huber").at(1.0, solver="fast")


def test_without_diffrax_the_error_says_what_to_install():
    program = (
        "import sys; sys.modules['diffrax'] = None\n"
        "import numpy as np, ntk_lab as ntk\n"
        "flow = ntk.predict.gradient_flow(np.eye(2), np.eye(2), loss='huber')\n"
        "try: flow.at(1.0)\n"
        "except ImportError as error: print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'ntk_lab[ode]'" in shown.stdout, shown.stderr
