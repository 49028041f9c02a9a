"""Choices of adapters: outputs, methods, random numbers; and what they refuse."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from ntk_lab.interop import from_equinox, from_haiku, from_linen, from_nnx
from ntk_lab.interop.models import choose_output, load, relaxed_promotion
from tests.tolerance import assert_close

nn = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")
eqx = pytest.importorskip("equinox")
hk = pytest.importorskip("haiku")

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)


def linen(module):
    with relaxed_promotion():
        return module, module.init({"params": KEY, "dropout": KEY}, X)


def transformed(function, *more):
    net = hk.transform_with_state(function)
    with relaxed_promotion():
        params, state = net.init(KEY, X, *more)
    return net, params, state


class Dropped(nnx.Module):
    """Asks for dropout whatever its mode, if told so."""

    def __init__(self, always):
        self.dense, self.always = nnx.Linear(3, 2, rngs=nnx.Rngs(0)), always
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.dropout(self.dense(x), deterministic=False if self.always else None)


class Normed(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.norm(self.dense(x))


class EquinoxDropped(eqx.Module):
    dense: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __call__(self, x, *, key):
        return self.dropout(self.dense(x), key=key)


class EquinoxNormed(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __init__(self):
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="ema")

    def __call__(self, x, state):
        return self.norm(x, state)


def equinox_dropped():
    return EquinoxDropped(eqx.nn.Linear(3, 2, key=KEY), eqx.nn.Dropout(0.5))


def haiku_dropped(x):
    return hk.dropout(hk.next_rng_key(), 0.5, hk.Linear(2)(x))


def haiku_normed(x, is_training):
    return hk.BatchNorm(True, True, 0.9)(hk.Linear(2)(x), is_training)


def linen_normed():
    return linen(nn.Sequential([nn.Dense(2), nn.BatchNorm(use_running_average=False)]))


def linen_dropped():
    return linen(nn.Sequential([nn.Dense(2), nn.Dropout(0.5, deterministic=False)]))


TRAINING = {
    "linen": (lambda: from_linen(*linen_normed()), "would update its variables.*mean"),
    "nnx": (lambda: from_nnx(Normed(), inference=False), "would update norm/mean .BatchStat"),
    "equinox": (
        lambda: from_equinox(*eqx.nn.make_with_state(EquinoxNormed)(), inference=False),
        "statistics of the batch",
    ),
    "haiku": (
        lambda: from_haiku(*transformed(haiku_normed, True), is_training=True),
        r"would update its state\['batch_norm",
    ),
}
RANDOM = {
    "linen": (lambda: from_linen(*linen_dropped()), "draws random numbers.*give rngs="),
    "nnx": (lambda: from_nnx(Dropped(always=True)), "draws random numbers from dropout/rngs"),
    "equinox": (
        lambda: from_equinox(equinox_dropped(), inference=False),
        "draws random numbers.*give a key",
    ),
    "haiku": (lambda: from_haiku(*transformed(haiku_dropped)), "draws random.*give rng=key"),
}
SAMPLED = {
    "linen": lambda: from_linen(*linen_dropped(), rngs={"dropout": KEY}),
    "nnx": lambda: from_nnx(Dropped(always=False), inference=False),
    "equinox": lambda: from_equinox(equinox_dropped(), inference=False, key=KEY),
    "haiku": lambda: from_haiku(*transformed(haiku_dropped), rng=jax.random.PRNGKey(0)),
}


@pytest.mark.parametrize("library", TRAINING)
def test_a_model_that_would_train_its_statistics_is_refused(library):
    adapt, words = TRAINING[library]
    f, params = adapt()
    with pytest.raises(InputError, match=words):
        ntk.empirical.ntk(f, params, X)


@pytest.mark.parametrize("library", RANDOM)
def test_a_model_that_draws_random_numbers_and_has_no_key_is_refused(library):
    adapt, words = RANDOM[library]
    f, params = adapt()
    with pytest.raises(InputError, match=words):
        ntk.empirical.ntk(f, params, X)


@pytest.mark.parametrize("library", SAMPLED)
def test_with_a_key_every_example_sees_the_same_sub_network(library):
    adapted = SAMPLED[library]()
    assert "one draw of random numbers for all examples" in adapted.remarks
    f, params = adapted
    same = f(params, jnp.broadcast_to(X[:1], X.shape))
    np.testing.assert_array_equal(same, np.broadcast_to(same[:1], same.shape))
    ntk.empirical.ntk(f, params, X)  # would be refused if examples were mixed


def test_models_keep_their_mode():
    model, normed = Dropped(always=False), Normed()
    from_nnx(model)
    from_nnx(normed)
    assert not model.dropout.deterministic
    assert not normed.norm.use_running_average
    dropped = equinox_dropped()
    from_equinox(dropped)
    assert not dropped.dropout.inference


def heads(x):
    return {"logits": x, "value": x[:, :1], "both": (x, x)}


def test_outputs_are_chosen_by_name_number_list_or_function():
    net = hk.without_apply_rng(hk.transform(lambda x: heads(hk.Linear(2)(x))))
    params = net.init(KEY, X)

    def kernel(output):
        f, p = from_haiku(net, params, output=output)
        return np.asarray(ntk.empirical.ntk(f, p, X))

    logits = kernel("logits")
    assert_close(kernel(["value"]), logits[:, :, :1, :1])
    assert_close(kernel(lambda found: found["both"][1]), logits)
    both = kernel(["logits", "value"])
    assert both.shape == (4, 4, 3, 3)
    assert_close(both[:, :, 2, 2], logits[:, :, 0, 0])
    np.testing.assert_array_equal(choose_output((X, -X), 1), -X)
    np.testing.assert_array_equal(choose_output([X], None), X)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (None, "4 arrays: 'logits', 'value', 'both'. Choose one"),
        ("logit", "'logit'.*'logits', 'value', 'both'"),
        ("both", "expected one array"),
        ([], "at least one"),
    ],
)
def test_a_choice_of_outputs_that_is_missing_or_unclear_is_explained(output, words):
    with pytest.raises(InputError, match=words):
        choose_output(heads(X), output)


def test_other_methods_are_called_by_name_or_as_functions():
    class Linen(nn.Module):
        def setup(self):
            self.dense = nn.Dense(2)

        def encode(self, x, train):
            return -self.dense(x) if train else self.dense(x)

        def __call__(self, x):
            return 2 * self.encode(x, train=False)

    module = Linen()
    variables = module.init(KEY, X)
    expected = 0.5 * module.apply(variables, X)
    for method in ("encode", lambda module, x: module.encode(x, train=False)):
        f, params = from_linen(module, variables, method=method)
        np.testing.assert_array_equal(f(params, X), expected)
    model = Dropped(always=True)
    f, params = from_nnx(model, method=lambda model, x: model.dense(x))
    np.testing.assert_array_equal(f(params, X), model.dense(X))
    dropped = equinox_dropped()
    f, params = from_equinox(dropped, method=lambda model, x: model.dense(x))
    with relaxed_promotion():
        expected = jax.vmap(dropped.dense)(X)
    np.testing.assert_array_equal(f(params, X), expected)


def test_equinox_models_of_whole_batches_and_inputs_in_trees():
    class Batched(eqx.Module):
        w: jax.Array
        size: int = 3

        def __call__(self, x):
            return x["a"] @ self.w + x["b"]

    x = {"a": X, "b": X[:, :2]}
    w = jnp.ones((3, 2), jnp.float32)
    expected = x["a"] @ w + x["b"]
    for batched in (True, False):
        f, params = from_equinox(Batched(w), batched=batched)
        assert len(jax.tree.leaves(params)) == 1
        np.testing.assert_allclose(f(params, x), expected, rtol=1e-6)


def test_arrays_that_sit_in_two_places_are_remarked_on():
    layer = eqx.nn.Linear(3, 3, use_bias=False, key=KEY)
    adapted = from_equinox(eqx.nn.Sequential([layer, layer]))
    assert "layers/0/weight and layers/1/weight are one array" in repr(adapted)


@pytest.mark.parametrize(
    ("adapt", "words"),
    [
        (lambda: from_linen(nn.Dense(2), {"w": X}), "entries 'w', without an entry 'params'"),
        (lambda: from_linen(nn.Dense(2), X), "without an entry 'params'"),
        (lambda: from_nnx(nnx.Dropout(0.5)), "no variables of kind"),
        (lambda: from_equinox(eqx.nn.Dropout(0.5)), "no inexact arrays"),
        (
            lambda: from_equinox(eqx.nn.make_with_state(EquinoxNormed)()[0]),
            "stateful layers .BatchNorm.: give their state",
        ),
        (lambda: from_equinox(eqx.nn.Lambda(jnp.sin), X), "no inexact arrays"),
        (lambda: from_haiku(jnp.sin, {}), "expected what hk.transform"),
        (lambda: from_haiku(*transformed(haiku_normed, True)[:2]), "has a state: give it"),
        (
            lambda: from_haiku(hk.transform(haiku_dropped), {}, {}),
            "hk.transform made a function without one",
        ),
        (
            lambda: from_haiku(hk.without_apply_rng(hk.transform(lambda x: x)), {}, rng=KEY),
            "takes none",
        ),
    ],
)
def test_bad_input_is_explained(adapt, words):
    with pytest.raises(InputError, match=words):
        adapt()


def test_a_missing_library_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "equinox", None)
    with pytest.raises(ImportError, match=r"pip install 'ntk_lab\[equinox\]'"):
        from_equinox(None)
    with pytest.raises(ImportError, match="needs absent, which is not installed"):
        load("absent_library", "absent", "absent")
