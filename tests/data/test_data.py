"""Data sets: real, reproducible, without overlap, scaled by the training part alone."""

import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError


def rows(x):
    return {image.tobytes() for image in x}


def test_digits_are_all_the_digits_once():
    (x, y), (x_test, y_test) = ntk.data.digits(train=1000, test=797)
    assert x.shape == (1000, 8, 8, 1)
    assert x_test.shape == (797, 8, 8, 1)
    assert x.dtype == x_test.dtype == np.float32
    assert np.issubdtype(y.dtype, np.integer)
    # Counts by class from the data set's own description.
    counts = np.bincount(np.concatenate([y, y_test]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(rows(x)) == 1000
    assert not rows(x) & rows(x_test)


def test_pixels_belong_to_their_labels():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    (x, y), (x_test, y_test) = ntk.data.digits(train=100, test=50, seed=4)
    order = np.random.default_rng(4).permutation(1797)
    mean = images[order[:100]].mean(axis=0)
    scale = np.sqrt(((images[order[:100]] - mean) ** 2).mean())
    for part, numbers, chosen in ((x, y, order[:100]), (x_test, y_test, order[100:150])):
        np.testing.assert_array_equal(numbers, labels[chosen])
        expected = (images[chosen] - mean) / scale
        np.testing.assert_allclose(part.reshape(len(part), 64), expected, atol=1e-6)


def test_inputs_are_centred_and_scaled_by_the_training_part():
    (x, _), (x_test, _) = ntk.data.digits(train=200, test=100)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    assert (x**2).mean() == pytest.approx(1, rel=1e-5)
    assert abs(x_test.mean(axis=0)).max() > 1e-3


def test_seeds_draw_other_examples_and_the_same_seed_the_same():
    a, b, c = (ntk.data.digits(train=50, test=20, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(a.train[0], b.train[0])
    np.testing.assert_array_equal(a.test[1], b.test[1])
    assert (a.train[1] != c.train[1]).any()


@pytest.mark.parametrize(("train", "test"), [(0, 5), (5, 0), (1000, 798), (-1, 5)])
def test_sizes_that_cannot_be_are_told_the_limit(train, test):
    with pytest.raises(InputError, match="at most 1797"):
        ntk.data.digits(train=train, test=test)


def test_inputs_and_targets_must_match():
    with pytest.raises(InputError, match="5 inputs and 4 targets"):
        ntk.data.split(np.ones((5, 2)), np.ones(4), 2, 1, 0)


def test_constant_inputs_are_not_divided_by_zero():
    s = ntk.data.split(np.ones((5, 2)), np.arange(5), 3, 2, 0)
    assert (s.train[0] == 0).all()
    assert (s.test[0] == 0).all()


def test_mnist_5k_has_500_images_a_class():
    (x, y), (x_test, y_test) = ntk.data.mnist_5k(train=4000, test=1000)
    assert x.shape == (4000, 28, 28, 1)
    assert x.dtype == x_test.dtype == np.float32
    assert np.bincount(np.concatenate([y, y_test])).tolist() == [500] * 10
    assert not rows(x) & rows(x_test)


def test_mnist1d_is_reproducible_balanced_and_leaves_the_process_random_numbers_alone():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    (x, y), (x_test, y_test) = ntk.data.mnist1d(train=300, test=100, seed=5)
    assert np.random.random() == expected
    assert x.shape == (300, 40, 1)
    assert x_test.shape == (100, 40, 1)
    assert np.bincount(np.concatenate([y, y_test])).tolist() == [40] * 10
    again = ntk.data.mnist1d(train=300, test=100, seed=5)
    np.testing.assert_array_equal(x, again.train[0])
    assert (ntk.data.mnist1d(train=300, test=100, seed=6).train[0] != x).any()
    with pytest.raises(InputError, match="at least 1"):
        ntk.data.mnist1d(train=0)


@pytest.mark.parametrize("name", ntk.data.TABLES)
def test_tables_are_standardized_and_whole(name):
    table = ntk.data.tabular(name)
    assert table.x.dtype == np.float64
    assert len(table.x) == len(table.y) >= 16
    np.testing.assert_allclose(table.x.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(table.x.std(0), 1, rtol=1e-9)
    if table.task == "regression":
        assert table.y.std() == pytest.approx(1)
    else:
        assert np.bincount(table.y).min() >= 10
    small = ntk.data.tabular(name, rows=15)
    classes = len(np.unique(small.y)) if table.task == "classification" else 0
    assert len(small.x) <= 15 + 5 * classes


def test_tables_keep_rows_with_their_targets():
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    table = ntk.data.tabular("wine", seed=3)
    order = np.random.default_rng(3).permutation(len(x))
    np.testing.assert_allclose(table.x, ((x - x.mean(0)) / x.std(0))[order], atol=1e-12)
    np.testing.assert_array_equal(table.y, y[order])
    with pytest.raises(InputError, match="no table 'boston'"):
        ntk.data.tabular("boston")
    with pytest.raises(InputError, match="rows is 3"):
        ntk.data.tabular("wine", rows=3)
