"""Models of flax, equinox and haiku have the kernel of the plain function they compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from tests.interop.models import LIBRARIES, NETWORKS, case, inputs
from tests.tolerance import assert_close

pytest.importorskip("flax")
pytest.importorskip("equinox")
pytest.importorskip("haiku")


def same(actual, expected):
    """Equal to 1e-12 of the kernel in float64."""
    assert actual.dtype == expected.dtype
    assert_close(actual, expected, factor=0.01 if actual.dtype == jnp.float64 else 2)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    f, params = case("plain", request.param)
    x = inputs(request.param)
    return request.param, f(params, x), ntk.empirical.ntk(f, params, x)


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_same_network_has_the_same_kernel_in_every_library(network, library):
    name, outputs, kernel = network
    f, params = case(library, name)
    x = inputs(name)
    same(f(params, x), outputs)
    same(ntk.empirical.ntk(f, params, x), kernel)
    same(ntk.empirical.ntk(f, params, x[:2], x[1:]), kernel[:2, 1:])


@pytest.mark.parametrize("library", LIBRARIES)
def test_parameters_are_the_trainable_arrays_each_once(network, library):
    name, *_ = network
    _, params = case(library, name)
    plain = case("plain", name)[1]
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, plain)]
    assert sizes[0] == sizes[1]
    assert len(jax.tree.leaves(params)) == len(plain)


@pytest.mark.parametrize("library", LIBRARIES)
def test_adapted_models_compile_differentiate_and_leave_no_trace(library):
    f, params = case(library, "cnn")
    x = inputs("cnn")
    before = f(params, x)
    moved = jax.tree.map(lambda p: 1.5 * p, params)
    assert not np.allclose(f(moved, x), before)
    assert_close(jax.jit(f)(params, x), before)
    gradient = jax.jit(jax.grad(lambda p: f(p, x).sum()))(params)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    np.testing.assert_array_equal(f(params, x), before)


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_was_frozen_is_said(library):
    words = {
        "linen": ["batch_stats frozen", "train=False"],
        "nnx": ["BatchStat frozen", "dropout off"],
        "equinox": ["state frozen", "dropout off"],
        "haiku": ["state frozen", "is_training=False"],
    }
    said = repr(case(library, "cnn"))
    assert said.startswith("AdaptedModel: 71 parameters in 6 arrays")
    assert all(word in said for word in words[library])


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_parameter_of_an_adapted_model_has_a_structured_rule(library):
    for name in ("mlp", "tokens"):
        f, params = case(library, name)
        assert not ntk.empirical.plan(f, params, inputs(name)).fallbacks


@pytest.mark.parametrize("library", LIBRARIES)
def test_adapted_models_compare_and_linearize(library):
    f, params = case(library, "mlp")
    x = inputs("mlp")
    linear = ntk.empirical.linearize(f, params)
    np.testing.assert_array_equal(linear(params, x), f(params, x))
