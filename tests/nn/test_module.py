"""What every module can do: triple, widths, parameterizations, text, JSON, errors."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lab import nn
from ntk_lab.errors import InputError
from ntk_lab.kernel import moments
from tests.tolerance import assert_close


@nn.module
class Halved(nn.Module):
    """A layer of a user's own: multiply by a factor."""

    factor: float = nn.hyper(default=1.0)

    def init(self, key, shape, dtype=None):
        return ()

    def apply(self, params, x):
        return self.factor * x

    def propagate(self, state):
        state = moments(state)
        square = self.factor**2
        return replace(state, cov=state.cov.scale(square), ntk=state.ntk * square)


@pytest.fixture
def net():
    block = nn.Residual(nn.Sequential(nn.Relu(), nn.Dense(8, b_std=0.1)))
    return nn.Sequential(nn.Flatten(), nn.Dense(8, 2**0.5), block, nn.Gelu(), nn.Dense(3))


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (4, 2, 2))


def test_a_network_unpacks_as_a_triple(net, x, key):
    init, apply, kernel = net
    params = init(key, (2, 2))
    assert apply(params, x).shape == (4, 3)
    assert kernel(x).ntk.shape == (4, 4)
    assert net.output_shape((2, 2)) == (3,)


def test_width_changes_hidden_layers_and_keeps_the_readout(net, key):
    wide = net.with_width(20)
    shapes = [leaf.shape for leaf in jax.tree.leaves(wide.init(key, (2, 2)))]
    assert sorted(shapes) == sorted([(4, 20), (20, 20), (20,), (20, 3)])
    assert wide.with_width(8) == net


def test_parameterizations_change_scales_and_not_the_function(net, x, key):
    reference = net.kernel(x).nngp
    standard = net.with_parameterization("standard")
    assert_close(standard.kernel(x).nngp, reference)
    assert [m.common_parameterization() for m in (net, standard)] == ["ntk", "standard"]
    mean_field = net.with_parameterization("mean_field").with_width(50)
    assert_close(50 * mean_field.kernel(x).ntk, net.kernel(x).ntk)
    scales = [m.learning_rate_scale() for m in (net, standard, mean_field)]
    assert scales == [1.0, 1 / 8, 50.0]


def test_networks_compare_hash_print_and_survive_json(net):
    again = nn.from_json(net.to_json())
    assert again == net
    assert hash(again) == hash(net)
    assert net.with_width(9) != net
    assert eval(repr(net), vars(nn)) != net.with_width(9)
    assert repr(eval(repr(net), vars(nn))) == repr(net)
    assert "Dense(8, w_std=1.41421)" in repr(net)


def test_a_layer_of_ones_own_takes_part_in_everything(x):
    net = nn.Sequential(nn.Flatten(), Halved(2.0), nn.Dense(4), nn.Relu(), nn.Dense(1))
    plain = nn.Sequential(nn.Flatten(), nn.Dense(4), nn.Relu(), nn.Dense(1))
    assert_close(net.kernel(x).ntk, 4 * plain.kernel(x).ntk)
    assert nn.from_json(net.to_json()) == net
    assert "Halved(factor=2)" in repr(net)
    slope = jax.grad(lambda net: net.kernel(x).ntk.sum())(net).layers[1].factor
    assert_close(slope, net.kernel(x).ntk.sum())


def test_kernels_are_differentiable_in_the_scales(x):
    net = nn.Sequential(nn.Flatten(), nn.Dense(4, 1.2, 0.3), nn.Relu(), nn.Dense(1, 0.9, 0.1))
    gradient = jax.grad(lambda net: net.kernel(x).ntk.sum())(net)
    step = 1e-2 if x.dtype == jnp.float32 else 1e-5
    for name in ("w_std", "b_std"):
        ends = []
        for sign in (1, -1):
            layer = net.layers[1]
            bumped = replace(layer, **{name: getattr(layer, name) + sign * step})
            changed = nn.Sequential(net.layers[0], bumped, *net.layers[2:])
            ends.append(float(changed.kernel(x).ntk.sum()))
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(getattr(gradient.layers[1], name), slope, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Dense(0), "width 0"),
        (lambda: nn.Dense(2.5), "integer"),
        (lambda: nn.Dense(2, -1.0), "not negative"),
        (lambda: nn.Dense(2, b_std=float("nan")), "finite"),
        (lambda: nn.Dense(2, parameterization="lazy"), "choose one of"),
        (lambda: nn.Sequential(nn.Dense(2), "relu"), "takes modules"),
        (lambda: nn.Residual(nn.Sequential(nn.Dense(2), nn.Relu())), "must end in a layer"),
        (lambda: nn.Residual(nn.Identity()), "must end in a layer"),
        (lambda: nn.from_json("{"), "not JSON"),
        (lambda: nn.from_json('{"module": "Nothing"}'), "no module is called"),
        (lambda: nn.Relu().kernel(jnp.ones((2, 3))), "before it"),
        (lambda: nn.Conv(2, (3, 3)).kernel(jnp.ones((2, 3, 1))), "2 spatial axes"),
        (lambda: nn.Residual(nn.Dense(5)).output_shape((3,)), "cannot be added"),
        (lambda: nn.Sequential(nn.Dense(2)).apply((), jnp.ones((2, 3))), "0 layers"),
        (
            lambda: nn.Dense(2).apply({"w": jnp.ones((4, 2))}, jnp.ones((2, 3))),
            "initialized for 4 channels",
        ),
    ],
)
def test_mistakes_are_explained(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_mixed_parameterizations_have_no_training_time():
    dense = nn.Dense(4, parameterization="standard")
    with pytest.raises(InputError, match="no common scale"):
        nn.Sequential(dense, nn.Relu(), nn.Dense(1)).learning_rate_scale()
