"""Gaps are what their definitions say: against plain loops, exact limits and inequalities."""

import jax
import jax.flatten_util
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError, StabilityError
from tests.compare.problems import FLOAT, hidden, plain_run, regression
from tests.tolerance import RTOL, assert_close

STEPS, RATE = 8, 0.15
EXACT = 100 * RTOL[FLOAT.name]  # rounding, through a solve and a difference


def compare(net, data, **options):
    defaults = {"widths": (16,), "seeds": 2, "steps": STEPS, "record": (STEPS,)}
    return ntk.compare(net, *data, **{"learning_rate": RATE, **defaults, **options})


def close(actual, expected):
    """Equal to the rounding of the run: measures are float64, but of outputs that may not be."""
    assert_close(np.asarray(actual, FLOAT), expected, factor=100)


def norm(f):
    return np.sqrt((f**2).sum())


@pytest.fixture(scope="module")
def two_outputs():
    return compare(hidden(2), regression(2), widths=(4, 16), key=3)


@pytest.fixture(scope="module")
def one_output():
    return compare(hidden(), regression())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("width", [4, 16])
def test_gaps_equal_a_plain_computation(two_outputs, width, seed):
    train, test = regression(2)
    net = hidden(2).with_width(width)
    r = plain_run(net, train, test, rate=RATE, steps=STEPS, seed=seed, key=3)
    moved = norm(r["network"] - r["start"])
    expected = {
        "displacement": moved,
        "gap/discretization": norm(r["descent"] - r["flow"]) / moved,
        "gap/finite-width kernel": norm(r["linearized"] - r["descent"]) / moved,
        "gap/feature learning": norm(r["network"] - r["linearized"]) / moved,
        "gap/total": norm(r["network"] - r["flow"]) / moved,
        "test_loss/kernel flow": norm(r["flow"] - test[1]) ** 2 / (2 * len(test[1])),
        "test_loss/network": norm(r["network"] - test[1]) ** 2 / (2 * len(test[1])),
    }
    i = two_outputs.widths.index(width)
    for name, value in expected.items():
        close(two_outputs.measures[name][i, seed, 0], value)


def test_drift_and_alignment_equal_a_plain_computation(one_output):
    train, test = regression()
    net = hidden().with_width(16)
    for seed in (0, 1):
        r = plain_run(net, train, test, rate=RATE, steps=STEPS, seed=seed)
        close(one_output.measures["drift"][0, seed, 0], r["drift"])
    assert (np.abs(one_output.measures["alignment"]) <= 1).all()


def test_halving_the_rate_at_fixed_time_halves_the_discretization_gap(one_output):
    half = compare(
        hidden(), regression(), learning_rate=RATE / 2, steps=2 * STEPS, record=(2 * STEPS,)
    )
    assert half.times[-1] == pytest.approx(one_output.times[-1])
    ratio = one_output.gap("discretization") / half.gap("discretization")
    assert ((ratio > 1.8) & (ratio < 2.2)).all()
    # What does not depend on the rate stays: the time is the same.
    ratio = one_output.gap("finite-width kernel") / half.gap("finite-width kernel")
    assert ((ratio > 0.9) & (ratio < 1.1)).all()


def test_gaps_obey_the_triangle_inequality(two_outputs):
    parts = sum(two_outputs.gap(g) for g in two_outputs.gaps)
    assert (two_outputs.gap() <= parts * (1 + 1e-6)).all()
    largest = np.max([two_outputs.gap(g) for g in two_outputs.gaps], axis=0)
    rest = parts - largest
    assert (two_outputs.gap() >= largest - rest - 1e-6).all()


@pytest.mark.parametrize("kind", ["dense", "frozen"])
def test_a_network_linear_in_its_parameters_learns_no_features(kind):
    nn = ntk.nn
    nets = {
        "dense": nn.Sequential(nn.Flatten(), nn.Dense(2, b_std=0.1)),
        "frozen": nn.Sequential(
            nn.Frozen(nn.Sequential(nn.Dense(8), nn.Erf())), nn.Dense(2, b_std=0.1)
        ),
    }
    c = compare(nets[kind], regression(2), learning_rate=None)
    assert c.gap("feature learning").max() < EXACT
    assert c.measures["drift"].max() < EXACT
    assert c.gap("discretization").max() > 1e-4
    if kind == "dense":  # and its kernel is the limit already
        assert c.gap("finite-width kernel").max() < EXACT
    else:
        assert c.gap("finite-width kernel").min() > 1e-3


def test_several_widths_of_a_network_without_hidden_layers_are_refused():
    with pytest.raises(InputError, match=r"no hidden layer whose width could change.*single width"):
        compare(ntk.nn.Sequential(ntk.nn.Dense(1)), regression(), widths=(4, 16))


def test_there_is_an_optimizer_gap_only_for_an_optimizer_or_mini_batches(one_output):
    assert one_output.gaps == ("discretization", "finite-width kernel", "feature learning")
    assert not any("optimizer" in name for name in one_output.measures)
    assert one_output.settings["optimizer"] is False


def test_the_optimizer_gap_of_plain_descent_is_zero(one_output):
    c = compare(hidden(), regression(), optimizer=optax.sgd(RATE), batch_size=10)
    assert c.gaps[-1] == "optimizer"
    assert c.gap("optimizer").max() < EXACT
    for name in ("gap/total", "drift", "motion", "displacement"):
        close(c.measures[name], one_output.measures[name])


@pytest.mark.slow
def test_another_optimizer_and_mini_batches_have_a_gap_of_their_own(one_output):
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes dtypes
        c = compare(hidden(), regression(), optimizer=optax.adam, batch_size=4)
    assert c.gap("optimizer").min() > 0.01
    moved = c.measures["displacement"] / one_output.measures["displacement"]
    for g in one_output.gaps:  # the same numerators over another displacement
        close(c.gap(g) * moved, one_output.gap(g))
    assert c.exponents()["total"] is None  # one width
    assert (c.gap() <= sum(c.gap(g) for g in c.gaps) * (1 + 1e-6)).all()


def test_numbers_differ_between_keys_and_between_seeds(two_outputs):
    # That they are the same for the same key, bit by bit, is in test_checkpoint.py.
    other = compare(hidden(2), regression(2), widths=(4,), key=4)
    for name, values in two_outputs.measures.items():
        if name == "ensemble/coverage":  # a share of few
            continue
        assert (other.measures[name] != values[:1]).all(), name
        assert (values[:, 0] != values[:, 1]).all(), name


def test_sorted_data_missing_classes_and_repeated_examples_work():
    (x, _), (x_test, _) = regression()
    x = np.concatenate([x, x[:4]])  # the kernel has rank 10 of 14
    labels = np.where(x[:, 0] > 0, 2, 0)
    labels[-1] = 2 - labels[3]  # an example that is there under both labels
    order = np.argsort(labels, kind="stable")
    train, test = (x[order], labels[order]), (x_test, np.arange(6) % 4)
    c = compare(hidden(4), (train, test), seeds=1, learning_rate=None, kernel_points=4)
    # The first four alone are of one class, which has no alignment.
    assert len(set(labels[order][:4])) == 1
    assert all(np.isfinite(v).all() for v in c.measures.values())
    assert c.gap("finite-width kernel").max() < 2
    accuracy = c.measures["accuracy/network"]
    assert ((accuracy >= 0) & (accuracy <= 1)).all()
    assert c.verdicts[16, STEPS].status == "undecided"  # one seed
    assert "one seed has no error bar" in str(c)


def test_a_network_that_diverges_below_the_kernels_limit_is_an_error():
    with pytest.raises(StabilityError, match=r"seed 0 .*not finite.*smaller"):
        compare(hidden(), regression(), optimizer=optax.sgd(1e6), steps=300, record=(300,))


@pytest.mark.slow
def test_sharpness_is_the_top_eigenvalue_of_a_dense_hessian():
    c = compare(hidden(), regression(), sharpness=True, seeds=1)
    (x, y), _ = regression()
    net = hidden().with_width(16)
    params = net.init(jax.random.fold_in(jax.random.key(0), 0), (3,), FLOAT)
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def loss(p):
        return ((net.apply(unravel(p), x) - y) ** 2).sum() / (2 * len(x))

    for _ in range(STEPS):
        flat = flat - RATE * jax.grad(loss)(flat)
    expected = np.linalg.eigvalsh(np.asarray(jax.hessian(loss)(flat), np.float64))[-1]
    assert c.measures["sharpness/of the loss"][0, 0, 0] == pytest.approx(expected, rel=3e-3)
    assert c.measures["sharpness/of the kernel"].shape == (1, 1, 1)
