"""The estimators keep scikit-learn's contract, and are kernel regression."""

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import SkipTestWarning
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.interop.scikit_learn import Gram, NeuralKernelClassifier, NeuralKernelRegressor
from tests.tolerance import assert_close

# The same float64 programs whatever the precision of the rest.
pytestmark = pytest.mark.filterwarnings(f"ignore::{SkipTestWarning.__module__}.SkipTestWarning")


@pytest.mark.slow
@parametrize_with_checks([NeuralKernelClassifier(), NeuralKernelRegressor()])
def test_they_are_estimators_of_scikit_learn(estimator, check):
    check(estimator)


def net(depth):
    hidden = [ntk.nn.Dense(1, 2**0.5, 0.1), ntk.nn.Relu()] * depth
    return ntk.nn.Sequential(*hidden, ntk.nn.Dense(1, 2**0.5))


@pytest.mark.parametrize("kernel", ["ntk", "nngp"])
def test_regression_is_that_of_ntk_predict(kernel):
    rng = np.random.default_rng(0)
    x, new, y = rng.normal(size=(20, 3)), rng.normal(size=(5, 3)), rng.normal(size=(20, 2))
    model = NeuralKernelRegressor(2, kernel=kernel, ridge=0.01).fit(x, y)
    with jax.enable_x64(True):
        k = getattr(net(2).kernel(x), kernel)
        cross = getattr(net(2).kernel(new, x), kernel)
        ridge = 0.01 * float(np.trace(k)) / 20
        posterior = ntk.predict.gp_posterior(k, y - y.mean(0), cross, noise=ridge)
        expected = np.asarray(posterior.mean) + y.mean(0)
    assert_close(model.predict(new), expected, factor=100)
    assert_close(model.fit(x, y[:, 0]).predict(new), expected[:, 0], factor=100)


def test_a_network_of_ones_own_takes_the_place_of_the_layers():
    x, y = load_iris(return_X_y=True)
    own = NeuralKernelClassifier(net=net(3)).fit(x[::2], y[::2])
    same = NeuralKernelClassifier(3).fit(x[::2], y[::2])
    np.testing.assert_array_equal(own.decision_function(x), same.decision_function(x))
    assert clone(own).net == own.net
    assert own.score(x[1::2], y[1::2]) > 0.93


def test_gram_matrices_serve_any_kernel_machine():
    x, y = load_iris(return_X_y=True)
    gram = Gram(net(2), cosine=True)
    np.testing.assert_allclose(np.diag(gram(x[::3])), 1, rtol=1e-12)
    np.testing.assert_allclose(gram(x[:7], x[::3]), gram(x[:7].copy(), x[::3]), rtol=0)
    machine = SVC(kernel=gram).fit(x[::2], y[::2])
    precomputed = SVC(kernel="precomputed").fit(gram(x[::2]), y[::2])
    np.testing.assert_array_equal(machine.predict(x), precomputed.predict(gram(x, x[::2])))
    plain = Gram(net(2), "nngp")
    with jax.enable_x64(True):
        expected = np.asarray(net(2).kernel(x[:5]).nngp)
    np.testing.assert_allclose(plain(x[:5]), expected, rtol=1e-14)
    assert plain(x[:5]).dtype == np.float64


def test_what_cannot_be_fitted_is_explained():
    x, y = np.eye(4)[[0, 0, 1, 2]], np.arange(4.0)
    with pytest.raises(NumericalError, match="singular"):
        NeuralKernelRegressor(0, ridge=0).fit(x, y)
    with pytest.raises(InputError, match="activation"):
        NeuralKernelRegressor(activation="step").fit(x, y)
    with pytest.raises(InputError, match="ridge"):
        NeuralKernelRegressor(ridge=-1).fit(x, y)
    with pytest.raises(InputError, match="kernel is 'rbf'"):
        NeuralKernelRegressor(kernel="rbf").fit(x, y)
    no_bias = ntk.nn.Sequential(ntk.nn.Dense(1))
    with pytest.raises(NumericalError, match="no direction"):
        Gram(no_bias, cosine=True)(np.zeros((2, 3)))
