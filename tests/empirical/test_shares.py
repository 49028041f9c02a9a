"""Shares of parameters, layers and neurons against Jacobians that are formed in full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.empirical import by_layer, kernel_shares, prediction_shares
from ntk_lab.errors import InputError, NumericalError
from tests.interop.models import case, inputs
from tests.tolerance import assert_close


def draw(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


PARAMS = {
    "0": {"w": draw(3, 6), "b": draw(6)},
    "1": {"w": draw(6, 5), "b": draw(5)},
    "2": {"w": draw(5, 2)},
}
X, Y = draw(7, 3), draw(7, 2)
LAYERS = ("0", "1", "2")


def f(p, x):
    h = jnp.tanh(x @ p["0"]["w"] + p["0"]["b"][None])
    return jnp.tanh(h @ p["1"]["w"] + p["1"]["b"][None]) @ p["2"]["w"]


def jacobians(f, params, x):
    """From paths to ``(n, C, *shape)``, float64."""
    found = jax.jacobian(lambda p: f(p, x))(params)
    pairs, _ = jax.tree_util.tree_flatten_with_path(found)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(j, np.float64)
        for path, j in pairs
    }


def close(found, expected, **kwargs):
    """At the precision that the parameters have."""
    assert_close(jnp.asarray(found, float), np.asarray(expected), **kwargs)


# Of the kernel


def test_shares_are_those_of_the_jacobians_and_add_up_to_one():
    found = kernel_shares(f, PARAMS, X, Y)
    jac = jacobians(f, PARAMS, X)
    total = sum(np.sum(j**2) for j in jac.values())
    towards = {path: np.tensordot(Y, j, 2) for path, j in jac.items()}
    rate = sum(np.sum(g**2) for g in towards.values())
    assert found.names == tuple(jac)
    close(found.trace, [np.sum(j**2) / total for j in jac.values()])
    close(found.target, [np.sum(g**2) / rate for g in towards.values()])
    assert found.trace.sum() == pytest.approx(1, abs=1e-15)
    assert found.target.sum() == pytest.approx(1, abs=1e-15)
    for path, j in jac.items():
        close(found.trace_of[path], np.sum(j**2, axis=(0, 1)) / 2)
        close(found.target_of[path], towards[path] ** 2, factor=10)


def test_totals_are_the_trace_of_the_kernel_and_its_rate_on_the_targets():
    found = kernel_shares(f, PARAMS, X, Y)
    trace = np.trace(ntk.empirical.ntk(f, PARAMS, X, outputs="trace"))
    kernel = ntk.empirical.ntk(f, PARAMS, X)
    close(found.total_trace, trace)
    close(found.total_target, jnp.einsum("ia,ijab,jb->", Y, kernel, Y), factor=10)


def test_shares_of_layers_are_those_of_their_contributions():
    found = kernel_shares(f, PARAMS, X, Y, group=by_layer)
    parts = ntk.empirical.contributions(f, PARAMS, X, group=by_layer)
    assert found.names == tuple(parts) == LAYERS
    rates = np.array([jnp.einsum("ia,ijab,jb->", Y, k, Y) for k in parts.values()], np.float64)
    traces = np.array([jnp.einsum("iiaa->", k) for k in parts.values()], np.float64)
    close(found.trace, traces / traces.sum())
    close(found.target, rates / rates.sum(), factor=10)
    np.testing.assert_array_equal(found.parameters, [24, 35, 10])


def test_shares_of_neurons_are_those_of_kernels_of_single_neurons():
    found = kernel_shares(f, PARAMS, X, Y)
    trace, target = found.units({"1/w": 1, "1/b": 0})
    whole = np.asarray(ntk.empirical.ntk(f, PARAMS, X), np.float64)
    y = np.asarray(Y, np.float64)
    for unit in range(5):

        def of_one(theta, x, unit=unit):
            layer = PARAMS["1"]
            w, b = layer["w"].at[:, unit].set(theta[:-1]), layer["b"].at[unit].set(theta[-1])
            return f({**PARAMS, "1": {"w": w, "b": b}}, x)

        theta = jnp.append(PARAMS["1"]["w"][:, unit], PARAMS["1"]["b"][unit])
        kernel = np.asarray(ntk.empirical.ntk(of_one, theta, X), np.float64)
        share = np.einsum("iiaa->", kernel) / np.einsum("iiaa->", whole)
        close(trace[unit], share)
        rates = [np.einsum("ia,ijab,jb->", y, k, y) for k in (kernel, whole)]
        close(target[unit], rates[0] / rates[1], factor=10)
    by_name = dict(zip(found.names, found.trace, strict=True))
    assert trace.sum() == pytest.approx(by_name["1/w"] + by_name["1/b"], rel=1e-12)
    outgoing, _ = found.units("2/w", axis=0)
    assert outgoing.shape == (5,)
    assert outgoing.sum() == pytest.approx(by_name["2/w"], rel=1e-12)


def test_a_neuron_without_outgoing_weights_has_no_share_but_by_its_own_readout():
    params = {**PARAMS, "2": {"w": PARAMS["2"]["w"].at[3].set(0.0)}}
    found = kernel_shares(f, params, X, Y)
    trace, target = found.units({"1/w": 1, "1/b": 0})
    assert trace[3] == target[3] == 0
    assert (np.delete(trace, 3) > 0).all()
    assert found.units("2/w", axis=0)[0][3] > 0


@pytest.mark.parametrize(
    ("library", "network"),
    [("linen", "mlp"), ("nnx", "mlp"), ("equinox", "mlp"), ("nnx", "cnn"), ("linen", "tokens")],
)
def test_the_same_network_has_the_same_shares_in_every_library(library, network):
    x = inputs(network)
    plain, weights = case("plain", network)
    expected = kernel_shares(plain, weights, x, jnp.sin(plain(weights, x)))
    g, params = case(library, network)
    found = kernel_shares(g, params, x, jnp.sin(plain(weights, x)))
    np.testing.assert_allclose(np.sort(found.trace), np.sort(expected.trace), rtol=2e-5)
    np.testing.assert_allclose(np.sort(found.target), np.sort(expected.target), rtol=2e-4)
    if network == "mlp":
        axis = 0 if library == "equinox" else 1
        path = next(n for n, v in found.trace_of.items() if v.size == 20)
        units = expected.units("w", axis=1)[0]
        np.testing.assert_allclose(found.units(path, axis)[0], units, rtol=2e-5)


def test_shares_of_a_pair_name_its_layers():
    net = ntk.nn.Sequential(ntk.nn.Dense(8, b_std=0.1), ntk.nn.Relu(), ntk.nn.Dense(2))
    params = net.init(jax.random.key(0), (3,))
    found = kernel_shares(net.apply, params, X, Y, group=by_layer)
    assert len(found.names) == 2
    lines = str(found).splitlines()
    assert lines[0].split() == ["parameters", "trace", "target"]
    assert len(lines) == 3
    assert lines[1].startswith(found.names[0])


def test_projected_outputs_selections_and_memory_limits():
    v = draw(2, 1)
    projected = kernel_shares(f, PARAMS, X, Y[:, :1], outputs=v)
    direct = kernel_shares(lambda p, x: f(p, x) @ v, PARAMS, X, Y[:, :1])
    close(projected.trace, direct.trace)
    close(projected.target, direct.target, factor=10)
    first = kernel_shares(f, PARAMS, X, Y, select=lambda path: path.startswith("0"))
    assert first.names == ("0/b", "0/w")
    whole = kernel_shares(f, PARAMS, X, Y)
    close(first.trace * first.total_trace, whole.trace[:2] * whole.total_trace)
    seen = []
    cut = kernel_shares(f, PARAMS, X, Y, memory=7000, progress=lambda *a: seen.append(a))
    assert len(seen) > 1
    assert seen[-1] == (7, 7)
    close(cut.trace, whole.trace)
    assert kernel_shares(f, PARAMS, X).target is None
    assert kernel_shares(f, PARAMS, X).units("2/w")[1] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": Y[:, :1]}, r"expected \(7, 2\)"),
        ({"y": Y * jnp.nan}, "NaN"),
        ({"outputs": "full"}, "choose 'trace'"),
        ({"memory": 10}, "gradients of one example take"),
        ({"select": lambda path: False}, "no floating-point parameter"),
    ],
)
def test_what_cannot_be_shared_is_explained(change, words):
    with pytest.raises(InputError, match=words):
        kernel_shares(f, PARAMS, X, **change)


def test_units_that_are_not_there_are_explained():
    found = kernel_shares(f, PARAMS, X)
    for paths, axis, words in [
        ("3/w", -1, "no parameter '3/w'; there are 0/b"),
        ("0/b", 1, "without an axis 1"),
        ({"0/w": 1, "1/w": 1}, -1, "numbers of units differ"),
    ]:
        with pytest.raises(InputError, match=words):
            found.units(paths, axis)


def test_a_network_that_does_not_depend_on_its_parameters_has_nothing_to_share():
    with pytest.raises(NumericalError, match="trace of the kernel is zero"):
        kernel_shares(lambda p, x: x * 0 * p, jnp.ones(()), X)
    with pytest.raises(NumericalError, match="not finite"):
        kernel_shares(f, jax.tree.map(lambda p: p * jnp.inf, PARAMS), X)


# Of the prediction


def moved(step):
    return jax.tree.map(lambda p: p + step * jnp.cos(3 * p), PARAMS)


def linear(p, x):
    """Of degree 3 in its weights."""
    return x @ p["0"]["w"] @ p["1"]["w"] @ p["2"]["w"]


def test_parts_are_products_with_the_jacobian_of_each_layer():
    after = moved(0.1)
    found = prediction_shares(f, PARAMS, after, X, group=by_layer)
    assert found.names == LAYERS
    for name, part in zip(found.names, found.parts, strict=True):
        direction = jax.tree.map(jnp.zeros_like, PARAMS)
        direction[name] = jax.tree.map(jnp.subtract, after[name], PARAMS[name])
        _, expected = jax.jvp(lambda p: f(p, X), (PARAMS,), (direction,))
        assert_close(part, expected, factor=10)
    linearized = ntk.empirical.linearize(f, PARAMS)
    change = f(after, X) - f(PARAMS, X)
    assert_close(found.change, change)
    assert_close(found.parts.sum(0), linearized(after, X) - f(PARAMS, X), factor=10)
    assert_close(found.rest, change - found.parts.sum(0), factor=10)
    assert found.shares.sum() + found.rest_share == pytest.approx(1, abs=1e-12)


def test_a_model_linear_in_its_parameters_leaves_no_rest():
    features = ntk.empirical.linearize(f, PARAMS)
    found = prediction_shares(features, PARAMS, moved(2.0), X)
    assert found.rest_size < 1e-5
    assert found.shares.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.x64
def test_the_rest_shrinks_with_the_motion():
    sizes = [prediction_shares(f, PARAMS, moved(t), X).rest_size for t in (4e-3, 2e-3, 1e-3)]
    np.testing.assert_allclose(np.diff(np.log2(sizes)), -1, atol=0.05)


def test_along_the_line_the_parts_of_a_polynomial_are_the_whole_change():
    after = moved(1.5)
    start = prediction_shares(linear, PARAMS, after, X, group=by_layer)
    along = prediction_shares(linear, PARAMS, after, X, group=by_layer, points=2)
    assert start.rest_size > 0.1
    assert along.rest_size < (1e-10 if jax.config.jax_enable_x64 else 1e-5)
    assert along.points == 2
    smooth = [prediction_shares(f, PARAMS, after, X, points=m).rest_size for m in (1, 3, 12)]
    assert smooth[0] > smooth[1] > smooth[2]


def test_layers_that_do_not_move_have_no_part():
    after = {**PARAMS, "1": moved(0.2)["1"]}
    found = prediction_shares(f, PARAMS, after, X, group=by_layer)
    np.testing.assert_array_equal(found.shares[[0, 2]], 0)
    lines = str(found).splitlines()
    assert lines[0].split() == ["share"]
    assert lines[-2].startswith("nonlinear rest")
    assert lines[-1].startswith("|rest| / |change| = ")


def test_changes_that_cannot_be_shared_are_explained():
    with pytest.raises(NumericalError, match="do not change"):
        prediction_shares(f, PARAMS, PARAMS, X)
    with pytest.raises(InputError, match="expected equal"):
        prediction_shares(lambda p, x: f(PARAMS, x), PARAMS, {"0": PARAMS["0"]}, X)
    wide = {**PARAMS, "0": {"w": draw(3, 6), "b": draw(1, 6)}}
    with pytest.raises(InputError, match="expected the same"):
        prediction_shares(lambda p, x: f(PARAMS, x), PARAMS, wide, X)
    with pytest.raises(InputError, match="at least 0"):
        prediction_shares(f, PARAMS, moved(1), X, points=-1)
