"""Each kind of unusable input is one clear error."""

import jax
import numpy as np
import pytest

from ntk_lab.errors import InputError, NumericalError
from ntk_lab.kernel.result import Kernel
from ntk_lab.predict import gradient_descent, gradient_flow, max_learning_rate
from tests.predict.problems import random_problem

P = random_problem(n=4, n_test=3)
DD, TD, TT = (k.ntk for k in (P.train_train, P.test_train, P.test_test))
NAN = np.where(np.eye(4) > 0, np.nan, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((DD[:, :3], P.y), r"kernel_train_train has shape \(4, 3\); expected \(n, n\)"),
        ((np.ones((2, 2, 3, 4)), P.y), "output axes of kernel_train_train differ"),
        ((NAN, P.y), "kernel_train_train has 4 NaN or infinite values of 16"),
        ((DD, P.y[:, 0]), r"reshape it to \(n, outputs\), e.g. y_train\[:, None\]"),
        ((DD, P.y[:3]), r"y_train has shape \(3, 2\); the kernels given call for \(4, outputs\)"),
        ((DD, P.y * np.nan), "y_train has 8 NaN"),
        ((DD, P.y + 1j), "y_train is complex.*real"),
        ((DD, np.array([["a"]] * 4)), "y_train has dtype <U1"),
        ((DD, P.y, TD.T), r"axes look swapped: pass the kernel of \(test, train\)"),
        ((DD, P.y, TD[:, :2]), r"kernel_test_train has shape \(3, 2\); expected \(n_test, 4\)\."),
        ((DD, P.y, TD * np.inf), "kernel_test_train has 12 NaN or infinite"),
        ((DD, P.y, TD, TD), r"kernel_test_test has shape \(3, 4\).*expected \(3, 3\)"),
        ((DD, P.y, None, TT), "needs kernel_test_train too"),
        ((P.train_train, P.y, TD), "kernel_train_train is a Kernel, kernel_test_train is an array"),
        ((Kernel(DD, None), P.y), r"kernel_train_train\.ntk is None"),
        ((DD.astype(np.float16), P.y), "kernel_train_train is float16"),
    ],
)
def test_arrays_that_do_not_fit_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        gradient_flow(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"f0_train": P.f0_train}, "must be given together"),
        ({"f0_train": P.f0_train[:, :1], "f0_test": P.f0_test}, r"f0_train.*call for \(4, 2\)"),
        ({"f0_train": P.f0_train, "f0_test": P.f0_train}, r"f0_test.*call for \(3, 2\)"),
        ({"ridge": -0.1}, r"ridge is -0\.1; it must be >= 0"),
        ({"ridge": np.ones(4)}, "one number"),
        ({"which": "ntkgp"}, "which is 'ntkgp'"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(InputError, match=message):
        gradient_flow(DD, P.y, TD, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_kernel_of_the_training_set_decides_the_dtype(dtype):
    other = np.float64 if dtype == np.float32 else np.float32
    kernel = np.asarray(DD, dtype)
    rest = (np.asarray(k, other) for k in (TD, TT))
    kernels = [Kernel(k, k) for k in (kernel, *rest)]
    found = gradient_flow(kernels[0], P.y.astype(other), *kernels[1:]).at(1.0)
    wanted = jax.dtypes.canonicalize_dtype(dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {wanted}


def test_output_axes_fix_the_number_of_outputs():
    kernel = np.einsum("ab,cd->abcd", DD, np.eye(3))
    with pytest.raises(InputError, match=r"call for \(4, 3\)"):
        gradient_flow(kernel, P.y)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (-1.0, r"t is -1\.0; it must be >= 0"),
        ([0.0, np.nan], "t is nan"),
        (1j, "complex"),
        (True, "bool"),
    ],
)
def test_times_are_not_negative(t, message):
    with pytest.raises(InputError, match=message):
        gradient_flow(DD, P.y).at(t)


@pytest.mark.parametrize(
    ("steps", "message"),
    [(-1, "steps is -1"), (2.0, "an integer"), (2**31, "2147483648"), (np.inf, "gradient_flow")],
)
def test_steps_are_whole_numbers(steps, message):
    with pytest.raises(InputError, match=message):
        gradient_descent(DD, P.y, learning_rate=0.1).at(steps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": -1.0}, r"learning_rate is -1\.0"),
        ({"learning_rate": np.ones(2)}, "one number"),
        ({"learning_rate": 0.1, "momentum": 1.0}, r"momentum is 1\.0"),
        ({"learning_rate": 0.1, "momentum": -0.1}, r"momentum is -0\.1"),
    ],
)
def test_rates_out_of_range_are_named(options, message):
    with pytest.raises(InputError, match=message):
        gradient_descent(DD, P.y, **options)


def test_kernels_that_are_no_kernels_are_refused():
    with pytest.raises(NumericalError, match="not positive semi-definite"):
        gradient_flow(DD - 0.5 * np.eye(4), P.y)
    with pytest.raises(NumericalError, match="not symmetric"):
        max_learning_rate(np.arange(16.0).reshape(4, 4))


LOSSES = pytest.mark.parametrize("loss", ["squared", "huber"])


@LOSSES
def test_one_example_is_enough(loss):
    one = np.ones((1, 1))
    descent = gradient_descent(one, 0.5 * one, one, learning_rate=0.5, loss=loss).at(1)
    np.testing.assert_allclose(descent.test.mean, 0.25)


@LOSSES
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_duplicates_with_different_labels_get_their_mean(loss, momentum):
    kernel = np.array([[1.0, 1.0, 0.2], [1.0, 1.0, 0.2], [0.2, 0.2, 1.0]])
    y = np.array([[1.0], [0.5], [-1.0]])
    options = {"loss": loss, "learning_rate": 0.5, "momentum": momentum}
    descent = gradient_descent(kernel, y, kernel[:1], **options)
    prediction = descent.at(400)
    np.testing.assert_allclose(prediction.train.mean[:2], 0.75, rtol=1e-5)
    np.testing.assert_allclose(prediction.test.mean, 0.75, rtol=1e-5)
    assert descent.diagnostics.rank == 2
    assert descent.diagnostics.condition_number > 1e6
