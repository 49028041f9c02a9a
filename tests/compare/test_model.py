"""Any model: its budget against plain loops, its pace, its error bars, its bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError, StabilityError
from tests.compare.problems import FLOAT, hidden, plain_run, regression
from tests.tolerance import assert_close

STEPS, RATE = 8, 0.15
X = np.random.default_rng(7).normal(size=(60, 3)).astype(FLOAT)


def model(params, x):
    """A plain function: one hidden layer, three classes."""
    return jnp.tanh(x @ params["in"]) @ params["out"] / params["out"].shape[0] ** 0.5


def draw(key, width=32, outputs=3):
    a, b = jax.random.split(key)
    return {
        "in": jax.random.normal(a, (3, width), FLOAT),
        "out": jax.random.normal(b, (width, outputs), FLOAT),
    }


def classes():
    labels = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
    return (X[:20], labels[:20]), (X[20:], labels[20:])


@pytest.fixture(autouse=True)
def _promotion():
    """optax's Adam mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def close(actual, expected, factor=100):
    assert_close(np.asarray(actual, FLOAT), expected, factor=factor)


@pytest.mark.slow
def test_gaps_of_a_model_equal_a_plain_computation():
    train, test = regression(2)
    net = hidden(2).with_width(16)
    c = ntk.compare_model(
        net.apply, lambda k: net.init(k, (3,), FLOAT), train, test,
        learning_rate=RATE, steps=STEPS, record=(STEPS,), seeds=2,
    )  # fmt: skip
    assert c.gaps == ("discretization", "feature learning")
    for seed in range(2):
        r = plain_run(net, train, test, rate=RATE, steps=STEPS, seed=seed)
        flow = _own_flow(net, train, test, seed)
        moved = np.linalg.norm(r["network"] - r["start"])
        expected = {
            "gap/discretization": np.linalg.norm(r["linearized"] - flow) / moved,
            "gap/feature learning": np.linalg.norm(r["network"] - r["linearized"]) / moved,
            "gap/total": np.linalg.norm(r["network"] - flow) / moved,
        }
        for name, value in expected.items():
            close(c.measures[name][0, seed, 0], value)


def _own_flow(net, train, test, seed):
    """Gradient flow of the linearized network, by its Jacobian."""
    (x, y), (x_test, _) = train, test
    params = net.init(jax.random.fold_in(jax.random.key(0), seed), (3,), x.dtype)

    def flat(part):
        j = jax.jacrev(net.apply)(params, part)
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(j)]
        return np.concatenate([leaf.reshape(2 * len(part), -1) for leaf in leaves], axis=1)

    j, j_test = flat(x), flat(x_test)
    values, vectors = np.linalg.eigh(j @ j.T)
    keep = values > 1e-9 * values.max()
    decay = np.where(
        keep, -np.expm1(-values * RATE * STEPS / len(x)) / np.where(keep, values, 1), 0
    )
    f0, g0 = (np.asarray(net.apply(params, part), np.float64) for part in (x, x_test))
    return g0 + (j_test @ j.T @ (vectors * decay) @ vectors.T @ (y - f0).ravel()).reshape(g0.shape)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_adam_is_matched_at_the_training_loss_that_it_reaches(loss):
    c = ntk.compare_model(
        model, draw, *classes(), loss=loss, optimizer=optax.adam(3e-3), steps=60, seeds=2
    )
    assert c.gaps == ("discretization", "feature learning", "optimizer")
    assert "as fast as the optimizer lowers the training loss" in c.settings["pace"]
    assert (np.diff(c.settings["descent_steps"]) > 0).all()
    # From the first recorded step on: a flow that is ahead of the run has a gap of several times.
    gaps = c.gap("optimizer").mean(axis=(0, 1))
    assert gaps.max() < 2 * gaps[-1]
    assert all(np.isfinite(v).all() for v in c.measures.values())
    # On seed 0 the kernel's end matches; its test loss is near the network's.
    ends = [c.measures[f"test_loss/{n}"][0, 0, -1] for n in ("kernel flow", "optimizer")]
    assert ends[0] == pytest.approx(ends[1], rel=0.5)
    parts = sum(c.gap(g) for g in c.gaps)
    assert (c.gap() <= parts * (1 + 1e-5)).all()
    beside = "feature learning under the optimizer"
    assert c.gap(beside).shape == c.gap().shape
    assert beside not in c.gaps
    text = str(c)
    assert "Gradient flow runs as fast as" in text
    assert "whatever the optimizer" in text
    assert "a function of 192 parameters" in text


def test_a_model_linear_in_its_parameters_is_predicted_for_the_whole_run():
    def linear(w, x):
        return jnp.sin(x) @ w

    c = ntk.compare_model(
        linear, lambda k: jax.random.normal(k, (3, 1), FLOAT), *regression(), steps=30, seeds=3
    )
    assert c.gap("feature learning").max() < 1e-4
    assert {v.status for v in c.verdicts.values()} == {"predicts"}
    assert c.horizon().value == float("inf")
    assert "beyond the run" in c.conclusion()


def test_one_run_has_error_bars_over_test_examples_that_are_those_of_resampling():
    params = draw(jax.random.key(5))
    (x, y), (x_test, y_test) = classes()
    c = ntk.compare_model(
        model, params, (x, y), (x_test, y_test), steps=200, record=(200,), learning_rate=1.0
    )
    assert len(c.seeds) == 1
    assert c.one_run
    assert "one run" in str(c)
    error = c.measures["error/total"][0, 0, 0]
    assert c.verdicts[1, 200].standard_error == error
    rng, gaps = np.random.default_rng(0), []
    for _ in range(12):  # the same run, seen on resampled test sets
        rows = rng.integers(len(x_test), size=len(x_test))
        again = ntk.compare_model(
            model, params, (x, y), (x_test[rows], y_test[rows]),
            steps=200, record=(200,), learning_rate=1.0,
        )  # fmt: skip
        gaps.append(again.gap()[0, 0, 0])
    # Twelve draws know a standard deviation to 21%: three of those and the delta method's own.
    assert 0.4 < np.std(gaps, ddof=1) / error < 2.0


def test_a_model_of_equinox_is_one_run_though_its_parameters_can_be_called():
    equinox = pytest.importorskip("equinox")
    net = equinox.nn.MLP(3, 3, 8, 1, key=jax.random.key(0), dtype=FLOAT)
    f, params = ntk.interop.from_equinox(net)
    assert callable(params)
    c = ntk.compare_model(f, params, *classes(), steps=5)
    assert c.one_run
    assert c.gap("feature learning")[..., -1] > 0


@pytest.mark.slow
def test_integer_inputs_and_integer_labels_are_taken():
    def tokens(params, x):
        return jnp.tanh(params["in"][x].mean(axis=1)) @ params["out"]

    x = np.random.default_rng(0).integers(0, 11, size=(40, 5))
    y = (x[:, 0] > 5).astype(int)

    def initial(key):
        a, b = jax.random.split(key)
        return {
            "in": jax.random.normal(a, (11, 16), FLOAT),
            "out": jax.random.normal(b, (16, 2), FLOAT) / 4,
        }

    c = ntk.compare_model(
        tokens, initial, (x[:20], y[:20]), (x[20:], y[20:]), steps=20, seeds=2,
        optimizer=optax.sgd(0.3), loss="cross_entropy", batch_size=5,
    )  # fmt: skip
    assert c.gap()[..., -1].max() < 1
    assert c.gap("optimizer").min() > 0


@pytest.mark.slow
def test_interrupted_models_go_on_where_they_stopped(tmp_path):
    options = {"steps": 10, "seeds": 2, "optimizer": optax.adam(1e-2)}
    first = ntk.compare_model(model, draw, *classes(), folder=tmp_path, **options)
    (tmp_path / "runs" / "width-1-seed-1.npz").unlink()
    again = ntk.compare_model(model, draw, *classes(), folder=tmp_path, **options)
    for name, values in first.measures.items():
        np.testing.assert_allclose(values, again.measures[name], rtol=1e-5, err_msg=name)
    with pytest.raises(InputError, match=r"another comparison: .*model"):
        ntk.compare_model(
            lambda p, x: 2 * model(p, x), draw, *classes(), folder=tmp_path, learning_rate=1.0,
            **options,
        )  # fmt: skip


def test_a_saved_comparison_of_a_model_is_read_back(tmp_path):
    c = ntk.compare_model(model, draw(jax.random.key(0)), *classes(), steps=20)
    page = c.report(tmp_path)
    assert "the model" in page.read_text()
    again = ntk.Comparison.load(tmp_path)
    assert str(again) == str(c)
    assert again.horizon() == c.horizon()


def lost_when_small(outputs, y):
    """A loss that is NaN from the step on at which an example is fitted."""
    value = jnp.sum((outputs - y) ** 2, axis=1) / 2
    return jnp.where(value < 0.1, jnp.nan, value)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"loss": lost_when_small, "steps": 80}, StabilityError, "not finite after step [1-9]"),
        ({"params": {"in": np.ones((3, 8))}}, InputError, "cannot be called on the training"),
        ({"f": lambda p, x: model(p, x)[:, :2]}, InputError, "targets are"),
        ({"f": lambda p, x: model(p, x)[:, 0]}, InputError, "An? model|A model"),
        ({"f": lambda p, x: jnp.argsort(model(p, x))}, InputError, "floating point"),
        ({"f": lambda p, x: model(p, x) / 0.0}, NumericalError, "NaN or infinite outputs"),
        ({"optimizer": optax.sgd(1e9)}, StabilityError, "optimizer took the training loss"),
        ({"learning_rate": 1e6}, StabilityError, "beyond the limit"),
        ({"loss": "mse"}, InputError, "no loss is called"),
        ({"steps": 0}, InputError, "steps=0"),
    ],
)
def test_bad_input_is_explained(change, error, match):
    train, test = classes()
    arguments = {"f": model, "params": draw(jax.random.key(0)), "steps": 5, **change}
    f, params = arguments.pop("f"), arguments.pop("params")
    with pytest.raises(error, match=match):
        ntk.compare_model(f, params, train, test, **arguments)


def test_a_model_that_mixes_examples_is_refused():
    def batch_norm(params, x):
        y = model(params, x)
        return (y - y.mean(axis=0, keepdims=True)) / (y.std(axis=0, keepdims=True) + 0.1)

    with pytest.raises(InputError, match="batch"):
        ntk.compare_model(batch_norm, draw(jax.random.key(0)), *classes(), steps=5)
