"""The law of robustness as a formula, and networks that interpolate against it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lab import nn
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.theory import predicted_sensitivity, robustness_law, sensitivity_of_size

NET = nn.Sequential(nn.Dense(1), nn.Relu(), nn.Dense(1))
KEY, OTHER = jax.random.split(jax.random.key(0))
X = jax.random.normal(jax.random.key(1), (40, 30))
Y = jnp.sign(jax.random.normal(jax.random.key(2), (40, 1)))
PROBES = jax.random.normal(jax.random.key(3), (60, 30))
WIDTHS = (80, 320, 1280)


def test_the_law_has_its_powers():
    law = robustness_law(400, 25, 100)
    assert law == 10
    np.testing.assert_allclose(robustness_law(800, 50, np.array([100, 400])), [20, 10])
    assert robustness_law(400, 25, 100, excess=0.3, isoperimetry=4.0) == pytest.approx(1.5)
    # A model of one parameter for each number of the data may be as flat as the data.
    assert robustness_law(400, 25, 400 * 25) == 1


@pytest.fixture(scope="module")
def measured():
    return sensitivity_of_size(NET, X, Y, PROBES, WIDTHS, seeds=6, key=KEY)


@pytest.mark.slow
def test_noise_is_fitted_as_steeply_as_theory_says(measured):
    predicted = predicted_sensitivity(NET, X, Y, PROBES, WIDTHS, key=OTHER)
    squares = measured.typical**2
    mean, error = squares.mean(0), squares.std(0, ddof=1) / 6**0.5
    # At 5%: corrections to theory of order 1 / n beyond the error over seeds.
    assert (np.abs(mean - predicted**2) < 4 * error + 0.05 * mean).all()
    assert (np.abs(mean / predicted**2 - 1) < 0.3).all()


def test_models_that_interpolate_lie_above_the_law_and_flatten_with_size(measured):
    assert measured.residual.max() < 1e-8
    assert (np.diff(measured.typical.mean(0)) < 0).all()
    assert (measured.largest >= measured.typical).all()
    # The theorem divides by 2^9 and a logarithm; these models are within a factor of the law.
    ratio = measured.largest.mean(0) / robustness_law(40, 30, np.array(WIDTHS))
    assert (ratio > 0.5).all()


def test_the_interpolant_is_the_one_of_least_norm():
    from ntk_lab.theory.robustness import _interpolate

    model = NET.with_width(80)
    params = model.init(KEY, (30,))
    fitted, _ = _interpolate(model, params, X, np.asarray(Y, np.float64))
    rtol = 1e-8 if jnp.result_type(float) == jnp.float64 else 1e-3
    np.testing.assert_allclose(model.apply(fitted, X), Y, rtol=rtol)
    features = nn.Sequential(*model.layers[:-1]).apply(params[:-1], X)
    least, *_ = np.linalg.lstsq(np.asarray(features, np.float64), np.asarray(Y, np.float64))
    np.testing.assert_allclose(
        np.linalg.norm(fitted[-1]["w"]) / 80**0.5, np.linalg.norm(least), rtol=1e-4
    )


def test_ascent_finds_steeper_places_than_the_probes(measured):
    near = sensitivity_of_size(NET, X, Y, PROBES, (80,), seeds=1, key=KEY, radius=0.5)
    assert near.largest[0, 0] > measured.largest[0, 0]
    np.testing.assert_allclose(near.typical[0, 0], measured.typical[0, 0], rtol=1e-5)


def test_what_cannot_be_measured_is_refused():
    biased = nn.Sequential(nn.Dense(1), nn.Relu(), nn.Dense(1, b_std=0.1))
    with pytest.raises(InputError, match="without bias"):
        sensitivity_of_size(biased, X, Y, PROBES, WIDTHS, seeds=1, key=KEY)
    with pytest.raises(InputError, match="above 41"):
        sensitivity_of_size(NET, X, Y, PROBES, (41,), seeds=1, key=KEY)
    with pytest.raises(InputError, match="labels"):
        sensitivity_of_size(NET, X, Y[:, 0], PROBES, WIDTHS, seeds=1, key=KEY)
    deep = nn.Sequential(nn.Dense(1), nn.Relu(), *NET.layers)
    with pytest.raises(InputError, match="two layers"):
        predicted_sensitivity(deep, X, Y, PROBES, WIDTHS, key=KEY)
    twice = jnp.concatenate([X, X]), jnp.concatenate([Y, -Y])
    with pytest.raises(NumericalError, match="linearly dependent"):
        sensitivity_of_size(NET, *twice, PROBES, (320,), seeds=1, key=KEY)
    with pytest.raises(InputError, match="must be positive"):
        robustness_law(10, 0, 10)
    with pytest.raises(InputError, match="excess"):
        robustness_law(10, 1, 10, excess=-1)
