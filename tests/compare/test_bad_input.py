"""Each unusable input is one paragraph that says what to do, before anything is trained."""

import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.compare.data import read_data
from ntk_lab.compare.experiment import Experiment
from ntk_lab.errors import InputError, NumericalError, StabilityError
from tests.compare.problems import hidden, regression

(X, Y), (X_TEST, Y_TEST) = regression()
NN = ntk.nn
NAN_X, NAN_Y = X.copy(), Y.copy()
NAN_X[3, 1], NAN_Y[[4, 7]] = np.nan, np.inf
LABELS, TEST_LABELS = np.arange(10) % 2, np.arange(6) % 2


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch, tmp_path):
    def run(self, seeds):
        pytest.fail("training began")

    monkeypatch.setattr(Experiment, "run", run)
    yield
    assert list(tmp_path.iterdir()) == []  # nor is a folder begun


def refused(message, folder, *, net=None, train=(X, Y), test=(X_TEST, Y_TEST), **options):
    options = {"widths": (4,), "seeds": 2, "steps": 5, **options}
    with pytest.raises(InputError, match=message) as caught:
        ntk.compare(hidden() if net is None else net, train, test, folder=folder, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    assert text.endswith((".", ")"))
    return caught.value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": X}, r"train must be a pair \(x, y\)"),
        ({"test": None}, r"test must be a pair \(x, y\)"),
        ({"train": (X[:, 0], Y)}, r"train set: .*shape \(10,\)"),
        ({"train": (NAN_X, Y)}, "train set: .*NaN .* in 1 of 10 examples.* number 3.*Remove"),
        ({"test": (X_TEST * np.inf, Y_TEST)}, "test set: .*in 6 of 6 examples"),
        ({"train": (X, NAN_Y)}, "targets of the train set are NaN .* in 2 of 10.* number 4"),
        ({"train": (X, Y[:9])}, r"train set has 10 examples and targets of shape \(9, 1\)"),
        ({"train": (X, LABELS[:9])}, r"10 examples and targets of shape \(9,\)"),
        ({"test": (X_TEST, Y_TEST[:, :, None])}, r"test set has 6 examples .* \(6, 1, 1\)"),
        ({"train": (X, Y[:, :0])}, r"targets of shape \(10, 0\)"),
        ({"train": (X[:1], Y[:1])}, "one training example is too few"),
        ({"train": (X, Y * 0 + 3)}, "same for every example.*Check the labels"),
        ({"train": (X, LABELS * 0), "test": (X_TEST, TEST_LABELS)}, "same for every example"),
        ({"test": (X_TEST[:, :2], Y_TEST)}, r"examples have shape \(3,\).* \(2,\).*must agree"),
        ({"test": (X_TEST, np.hstack([Y_TEST, Y_TEST]))}, "1 outputs and test targets 2"),
        ({"train": (X, Y + 1j)}, "dtype complex.*as floats"),
        ({"train": (X, LABELS), "test": (X_TEST, Y_TEST)}, "class numbers but test targets"),
        ({"train": (X, 2 * LABELS - 1), "test": (X_TEST, TEST_LABELS)}, "0 or above.*floats"),
        ({"train": (X, 2000 + LABELS), "test": (X_TEST, TEST_LABELS)}, "up to 2001 with only 4"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_compared_on(data, message, tmp_path):
    refused(message, tmp_path, **data)


@pytest.mark.parametrize("kind", [str, object, bytes])
def test_class_names_are_told_how_to_become_numbers(kind, tmp_path):
    names = np.array(["cat", "dog"])
    train, test = names[LABELS].astype(kind), names[TEST_LABELS].astype(kind)
    refused(
        r"np\.unique\(y, return_inverse=True\)", tmp_path, train=(X, train), test=(X_TEST, test)
    )


def test_class_numbers_as_floats_or_columns_are_told_to_be_integers(tmp_path):
    for change in (lambda y: y.astype(float), lambda y: y[:, None]):
        refused(
            r"targets have 1 outputs.*Class numbers are integers of shape \(n,\)", tmp_path,
            net=hidden(2), train=(X, change(LABELS)), test=(X_TEST, change(TEST_LABELS)),
        )  # fmt: skip


def test_labels_of_any_integer_type_give_the_same_targets():
    reads = [
        read_data((X, LABELS.astype(t)), (X_TEST, TEST_LABELS.astype(t)))
        for t in (np.uint8, np.int32, np.int64, np.uint64)
    ]
    for data in reads:
        np.testing.assert_array_equal(data.y_train, reads[0].y_train)
        np.testing.assert_allclose(data.y_train[:2], [[0.5, -0.5], [-0.5, 0.5]])
        np.testing.assert_array_equal(data.labels_test, TEST_LABELS)
    assert read_data((X, Y[:, 0]), (X_TEST, Y_TEST)).y_train.shape == (10, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (0, 4)}, r"widths=\(0, 4\) must be whole numbers of at least 1"),
        ({"widths": 0}, r"widths=\(0,\)"),
        ({"widths": ()}, r"widths=\(\)"),
        ({"widths": (4.5,)}, r"widths=\(4\.5,\)"),
        ({"widths": (8, 4)}, "must rise"),
        ({"widths": (4, 4)}, "must rise, each once"),
        ({"seeds": 0}, "seeds=0 must be a whole number of at least 1"),
        ({"seeds": 2.5}, r"seeds=2\.5"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 1.5}, r"steps=1\.5"),
        ({"tolerance": 0}, "tolerance=0 must lie between 0 and 1"),
        ({"tolerance": 1.0}, r"tolerance=1\.0"),
        ({"tolerance": float("nan")}, "tolerance=nan"),
        ({"confidence": 0.5}, r"confidence=0\.5"),
        ({"confidence": 95}, "confidence=95"),
        ({"kernel_points": 1}, "kernel_points=1"),
        ({"key": "a"}, "key=a must be a whole number"),
        ({"batch_size": 11}, "batch_size=11 must be .* between 1 and .* 10"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"record": (0, 5)}, "from 1: at step 0 nothing has moved"),
        ({"record": (1.5,)}, "whole step numbers"),
        ({"record": ()}, r"record=\(\) must be rising"),
        ({"record": (5, 1)}, r"record=\(5, 1\) must be rising"),
        ({"record": (6,)}, r"record=\(6,\) must be rising .* steps=5"),
        ({"optimizer": "adam"}, r"optimizer='adam' must be an optax optimizer, such as"),
        ({"optimizer": lambda rate: rate}, "must be an optax optimizer"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0 must be a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"parameterization": "ntp"}, "'ntp' is unknown; choose one of ntk, standard, mean_field"),
    ],
)
def test_settings_out_of_range(options, message, tmp_path):
    refused(message, tmp_path, **options)


def test_a_learning_rate_beyond_stability_is_told_the_limit(tmp_path):
    k = np.asarray(hidden().kernel(X).ntk, np.float64)
    limit = 2 * len(X) / np.linalg.eigvalsh(k)[-1]
    for rate in (1.001 * limit, 1e3 * limit):
        error = refused(
            rf"2 / lambda_max = {limit:.4g} .*Use less, for example", tmp_path, learning_rate=rate
        )
        assert isinstance(error, StabilityError)
    # Rates are in units that compare across widths, and so is their limit.
    refused(
        rf"2 / lambda_max = {limit:.4g} ", tmp_path, learning_rate=1.001 * limit,
        parameterization="mean_field",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda x: x, "needs an ntk_lab.nn network"),
        (hidden(3), r"to \(3,\), but the targets have 1 outputs. Its last layer .*Dense\(1\)"),
        (NN.Sequential(NN.Frozen(hidden())), "no parameter .* is trained.*Frozen"),
        (NN.Sequential(NN.Dense(4, parameterization="standard"), NN.Dense(1)), "with_parameter"),
    ],
)
def test_networks_that_do_not_fit(net, message, tmp_path):
    refused(message, tmp_path, net=net)


def test_images_need_flatten(tmp_path):
    images = X.reshape(10, 3, 1), X_TEST.reshape(6, 3, 1)
    refused(
        r"shape \(3, 1\) to \(3, 1\).*ntk\.nn\.Flatten\(\) for images", tmp_path,
        train=(images[0], Y), test=(images[1], Y_TEST),
    )  # fmt: skip


def test_a_step_too_small_to_see_is_an_error(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(NumericalError, match=r"no more than rounding.*Raise the learning rate"):
        ntk.compare(
            hidden(), (X, Y), (X_TEST, Y_TEST), widths=(4,), seeds=1, steps=1,
            optimizer=optax.sgd(0.0),
        )  # fmt: skip
