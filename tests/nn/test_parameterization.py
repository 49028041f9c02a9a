"""Parameterizations: identities between them, training time, their JSON, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from tests.nn.test_finite_against_infinite import samples, z_scores
from tests.tolerance import assert_close

nn = ntk.nn
WIDTH = 32


def network(*parameterizations, width=WIDTH, outputs=1):
    """Three layers with weights, each in a parameterization of its own."""
    first, hidden, readout = parameterizations
    return nn.Sequential(
        nn.Dense(width, 1.3, 0.3, first),
        nn.Relu(),
        nn.Dense(width, 1.2, 0.2, hidden),
        nn.Erf(),
        nn.Dense(outputs, 1.1, 0.1, readout),
    )


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (3, 4))


def assert_same(a, b, factor=1.0):
    assert_close(a.nngp, b.nngp)
    assert_close(a.ntk, factor * b.ntk)


def test_exponents_give_the_named_parameterizations(x):
    ntk_abc, readout = nn.ABC(0.5, 0), nn.ABC(1, 0, -1)
    named, powers = network("ntk", "ntk", "mean_field"), network(ntk_abc, ntk_abc, readout)
    assert_same(powers.kernel(x), named.kernel(x))
    # Shifting scale from the multiplier to the initial weights multiplies this layer's own share.
    shifted = network("ntk", "ntk", nn.ABC(0.25, 0.25))
    assert_close(shifted.kernel(x).nngp, network("ntk", "ntk", "ntk").kernel(x).nngp)


def test_maximal_update_is_a_mean_field_readout_at_another_rate(x):
    mup, mean_field = network("mup", "mup", "mup"), network("ntk", "ntk", "mean_field")
    assert_same(mup.kernel(x), mean_field.kernel(x), factor=WIDTH)
    assert mup.learning_rate_scale() * WIDTH == mean_field.learning_rate_scale()
    exponents = nn.ABC(-0.5, 0.5, size="width"), nn.ABC(0, 0.5), nn.ABC(0.5, 0.5)
    assert_same(mup.kernel(x), network(*exponents).kernel(x))


@pytest.mark.slow
@pytest.mark.parametrize("of", [nn.Dense, nn.Conv])
def test_layers_start_with_the_scale_of_their_kernel(of, x):
    """Over all parameterizations: the share of the readout in the NTK is |features|^2 scale^2."""
    for name in ("ntk", "standard", "mean_field", "mup", nn.ABC(0.3, 0.1), nn.Standard((1, 2))):
        window = ((3,),) if of is nn.Conv else ()
        layer = of(4, *window, w_std=1.3, b_std=0.2, parameterization=name)
        data = x[:, None] if of is nn.Conv else x
        net = nn.Sequential(layer, nn.Flatten()) if of is nn.Conv else layer
        params = net.init(jax.random.key(0), data.shape[1:])
        theta = ntk.empirical.ntk(net.apply, params, data, outputs="trace")
        assert_close(theta, net.kernel(data).ntk)


def test_networks_of_the_standard_kind_with_factors_have_their_kernel(x):
    layers = (
        nn.Dense(16, 1.3, 0.3, nn.Standard((1, 4))),
        nn.Relu(),
        nn.Dense(1, 1.1, 0.1, nn.Standard((4, 1))),
    )
    net = nn.Sequential(*layers)
    assert net.common_parameterization() == "standard"
    assert net.learning_rate_scale() == 1 / 16
    theta = np.asarray(samples(net, x, 96)[1], np.float64)
    assert z_scores(theta, np.asarray(net.kernel(x).ntk), 2 / 64).max() < 4.5


def test_an_output_scale_multiplies_both_kernels(x):
    net = network("ntk", "ntk", "ntk")
    scaled = nn.Sequential(net, nn.Scale(-3.0))
    assert_close(scaled.kernel(x).nngp, 9 * net.kernel(x).nngp)
    assert_close(scaled.kernel(x).ntk, 9 * net.kernel(x).ntk)
    gradient = jax.grad(lambda net: net.kernel(x).ntk.sum())(scaled)
    assert_close(gradient.layers[1].alpha, -6 * net.kernel(x).ntk.sum())


def test_learning_rates_follow_the_exponent():
    for c in (-1, 0.5):
        layers = [nn.ABC(0.5, 0, c)] * 3
        assert network(*layers).common_parameterization() == "abc"
        assert network(*layers).learning_rate_scale() == pytest.approx(WIDTH**-c)
    assert network("ntk", "ntk", "ntk").with_parameterization("mup").learning_rate_scale() == 1
    all_of_one = network("ntk", "ntk", "ntk").with_parameterization(nn.ABC(0.5, 0, 1))
    assert all_of_one.learning_rate_scale() == 1 / WIDTH
    with pytest.raises(InputError, match="one c"):
        network(nn.ABC(0.5, 0), nn.ABC(0.5, 0), nn.ABC(1, 0, -1)).learning_rate_scale()
    with pytest.raises(InputError, match="no common scale"):
        network("ntk", nn.ABC(0.5, 0), "ntk").learning_rate_scale()


def test_parameterizations_come_back_from_json():
    net = network(nn.ABC(-0.5, 0.5, size="width"), "mup", nn.Standard((2, 1)))
    assert nn.from_json(net.to_json()) == net
    assert hash(net) == hash(nn.from_json(net.to_json()))


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda: nn.Dense(3, parameterization="muP"), "ntk.nn.ABC"),
        (lambda: nn.Dense(3, parameterization=None), "unknown"),
        (lambda: nn.ABC(float("nan"), 0), "finite"),
        (lambda: nn.ABC(0, 0, size="depth"), "size"),
        (lambda: nn.Standard((0, 1)), "above 0"),
        (lambda: nn.SimpleRNN(3, parameterization=nn.Standard((2, 2))), "without factors"),
        (lambda: nn.from_json('{"module": "Dense", "width": {"parameterization": "A"}}'), "known"),
    ],
)
def test_errors_explain(run, reason):
    with pytest.raises(InputError, match=reason):
        run()


def test_comparisons_without_theory_are_refused_before_training():
    net = network(*[nn.ABC(0.5, 0)] * 3)
    data = jnp.eye(4), jnp.arange(4.0).reshape(4, 1)
    with pytest.raises(InputError, match="exponents"):
        ntk.compare(net, data, data, widths=(8,), seeds=1, steps=1)
