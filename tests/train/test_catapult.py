"""Phases of the learning rate in the model of arXiv:2003.02218, where they are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lab.errors import InputError
from ntk_lab.train import hessian_eigenvalues, learning_rate_phases, phase_of

WIDTH, STEPS = 800, 150
RATIOS = (0.5, 1.0, 1.8, 2.2, 2.6, 3.0, 3.4, 4.4, 5.0, 7.0)
ONE = jnp.ones((1, 1))


def paper(p, x):
    """Two linear layers, one input: ``f = <u, v> x / sqrt(width)``."""
    return x * (p["u"] @ p["v"]) / WIDTH**0.5


def start(seed):
    u, v = jax.random.normal(jax.random.key(seed), (2, WIDTH))
    return {"u": u, "v": v}


def recursion(params, rate):
    """Loss and curvature of the model by its own two equations, in float64."""
    u, v = np.asarray(params["u"], np.float64), np.asarray(params["v"], np.float64)
    f, curvature = u @ v / WIDTH**0.5, (u @ u + v @ v) / WIDTH
    losses, curvatures = [f**2 / 2], [curvature]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(STEPS):
            f, curvature = (
                f * (1 - rate * curvature + rate**2 * f**2 / WIDTH),
                curvature + rate * f**2 / WIDTH * (rate * curvature - 4),
            )
            losses.append(f**2 / 2)
            curvatures.append(curvature)
    return np.array(losses), np.array(curvatures)


@pytest.fixture(scope="module")
def linear():
    return learning_rate_phases(paper, start(0), ONE, 0 * ONE, steps=STEPS, ratios=RATIOS)


def test_the_phases_of_a_linear_network_are_those_of_the_paper(linear):
    names = [phase.name for phase in linear.phases]
    expected = ["lazy" if r < 2 else "catapult" if r < 4 else "divergent" for r in RATIOS]
    assert names == expected
    assert linear.lazy_until == pytest.approx((1.8, 2.2))
    assert linear.trains_until == pytest.approx((3.4, 4.4))
    np.testing.assert_allclose(linear.ratios, RATIOS)


def test_losses_and_curvatures_are_those_of_the_papers_recursion(linear):
    params = start(0)
    curvature0 = float((params["u"] @ params["u"] + params["v"] @ params["v"]) / WIDTH)
    assert linear.curvature0 == pytest.approx(curvature0, rel=1e-5)
    tolerance = 1e-6 if jax.config.jax_enable_x64 else 2e-2  # a catapult magnifies rounding
    for i, rate in enumerate(linear.learning_rates):
        losses, curvatures = recursion(params, rate)
        known = (losses < 1e3 * losses[0]) & (np.cumsum(losses >= 1e3 * losses[0]) == 0)
        np.testing.assert_allclose(
            linear.loss[i][known], losses[known], rtol=tolerance, atol=1e-5 * losses[0]
        )
        at = [k for k, s in enumerate(linear.steps) if known[: s + 1].all()]
        np.testing.assert_allclose(
            linear.curvature[i][at], curvatures[linear.steps[at]], rtol=tolerance
        )


def test_a_catapult_ends_below_the_limit_and_a_lazy_run_keeps_its_curvature(linear):
    for phase, ratio in zip(linear.phases, RATIOS, strict=True):
        assert phase.initial == pytest.approx(ratio)
        if phase.name == "lazy":
            assert phase.peak == 1
            assert phase.final == pytest.approx(ratio, rel=0.02)
        elif phase.name == "catapult":
            assert phase.peak > 1.01
            assert phase.final < 2 < phase.initial
            assert phase.remaining < 1e-2
            assert any("rises to" in line for line in phase.evidence)
        else:
            assert phase.peak == np.inf
            assert any("not finite" in line for line in phase.evidence)


@pytest.mark.x64
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_phases_by_the_recursion_alone_agree_over_a_fine_grid(seed):
    params = start(seed)
    curvature0 = recursion(params, 0.1)[1][0]
    for ratio in np.linspace(0.2, 6.2, 31):
        if min(abs(ratio - 2), abs(ratio - 4)) < 0.15:
            continue  # too near a limit for this width and number of steps
        losses, curvatures = recursion(params, ratio / curvature0)
        expected = "lazy" if ratio < 2 else "catapult" if ratio < 4 else "divergent"
        assert phase_of(losses, curvatures, ratio / curvature0).name == expected, ratio


def test_a_relu_network_trains_at_larger_rates_than_a_linear_one_and_the_limit_is_measured():
    keys = jax.random.split(jax.random.key(0), 4)
    x, y = jax.random.normal(keys[0], (6, 4)), jax.random.normal(keys[1], (6, 1))
    params = {
        "u": jax.random.normal(keys[2], (4, 256)),
        "v": jax.random.normal(keys[3], (256, 1)),
    }

    def relu(p, x):
        return jax.nn.relu(x @ p["u"] / 2) @ p["v"] * (2 / 256) ** 0.5

    found = learning_rate_phases(relu, params, x, y, steps=120, ratios=(1.0, 3.0, 40.0))
    assert [phase.name for phase in found.phases] == ["lazy", "catapult", "divergent"]
    exact = hessian_eigenvalues(relu, params, x, y, gauss_newton=True)
    assert found.curvature0 == pytest.approx(float(exact.eigenvalues[0]), rel=1e-4)


def test_a_curvature_recorded_once_is_that_of_the_last_step(linear):
    found = learning_rate_phases(paper, start(0), ONE, 0 * ONE, steps=40, ratios=(3.0,), record=1)
    assert found.steps.tolist() == [0, 40]
    np.testing.assert_allclose(found.loss[0, :40], linear.loss[RATIOS.index(3.0), :40], rtol=1e-5)


def test_another_loss_learning_rates_test_data_and_the_table():
    keys = jax.random.split(jax.random.key(1), 3)
    x, labels = jax.random.normal(keys[0], (8, 3)), jnp.array([0, 1, 2, 0, 1, 2, 0, 1])
    params, seen = {"w": jax.random.normal(keys[1], (3, 3)), "n": jnp.int32(1)}, []

    def linear(p, x):
        return x @ p["w"] * p["n"].astype(x.dtype)

    found = learning_rate_phases(
        linear,
        params,
        x,
        labels,
        steps=40,
        learning_rates=(0.1, 0.4),
        loss="cross_entropy",
        test=(x[:3], labels[:3]),
        progress=lambda *a: seen.append(a),
    )
    assert [phase.name for phase in found.phases] == ["lazy", "lazy"]
    assert found.test_loss.shape == (2,)
    assert seen == [(1, 2), (2, 2)]
    assert found.trains_until[1] == float("inf")
    lines = str(found).splitlines()
    assert len(lines) == 3
    assert lines[1].split()[2] == "lazy"


@pytest.mark.parametrize(
    ("loss", "curvature", "name", "words"),
    [
        ([1, 0.5, 0.1], [1.0, 1.01], "lazy", "never rises"),
        ([1, 5, 0.1], [3.0, 1.5], "catapult", "rises to 5"),
        ([1, 0.9, 0.1], [3.0, 1.5], "catapult", "not seen to rise"),
        ([1, 0.5, 2, 0.1], [1.0, 2.5, 1.5], "catapult", "on the way"),
        ([1, 5, np.inf, np.nan], [5.0, np.nan], "divergent", "not finite from step 2"),
        ([1, 5, 50], [5.0, 6.0], "divergent", "still grow together"),
        ([1, 5, 50], [3.0, 2.9], "undecided", "train for longer"),
        ([1, 1, 1], [0.5, 0.5], "undecided", "hardly changed"),
        ([1, 0.6, 0.4], [1.5, 2.1], "undecided", "edge of stability"),
        ([1, 3, 0.4], [1.5, 1.4], "undecided", "mini-batches or momentum"),
    ],
)
def test_the_record_decides_and_says_why(loss, curvature, name, words):
    found = phase_of(loss, curvature, 1.0)
    assert found.name == name
    assert words in str(found)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (([1.0], [1.0], 0.1), "expected vectors"),
        (([0.0, 1], [1.0], 0.1), "loss at the start is 0"),
        (([1.0, 1], [np.nan], 0.1), "curvature at the start is nan"),
        (([1.0, 1], [1.0], -0.1), "learning_rate is -0.1"),
    ],
)
def test_records_that_say_nothing_are_explained(args, words):
    with pytest.raises(InputError, match=words):
        phase_of(*args)


def test_learning_rates_that_make_no_sense_are_explained():
    for settings, words in [
        ({"ratios": (1, 2), "learning_rates": (1, 2)}, "not both"),
        ({"ratios": (2, 1)}, "positive and rising"),
        ({"ratios": (0, 1)}, "positive and rising"),
    ]:
        with pytest.raises(InputError, match=words):
            learning_rate_phases(paper, start(0), ONE, 0 * ONE, steps=2, **settings)
    with pytest.raises(InputError, match="curvature at the start is 0"):
        learning_rate_phases(lambda p, x: 0 * x * p, jnp.ones(()), ONE, ONE, steps=2)
