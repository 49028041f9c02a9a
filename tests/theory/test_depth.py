"""Sawtooth networks, regions on lines and in planes, lengths of curves: against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError
from tests.tolerance import assert_close

theory = ntk.theory


def relu_net(depth, width, w_std=2**0.5, b_std=0.3, outputs=1):
    layers = [ntk.nn.Dense(width, w_std, b_std), ntk.nn.Relu()] * depth
    return ntk.nn.Sequential(*layers, ntk.nn.Dense(outputs, w_std))


def patterns(net, params, x):
    """Which neurons are on, ``(n, neurons)``, in float64 by NumPy alone."""
    on = []
    for step in theory.affine.affine_steps(net, params):
        if step is None:
            on.append(x > 0)
            x = np.maximum(x, 0)
        else:
            x = x @ step[0] + step[1]
    return np.concatenate(on, axis=1)


@pytest.mark.parametrize("levels", [1, 2, 6])
def test_sawtooths_are_exact_and_have_two_to_the_levels_pieces(levels):
    net, params = theory.sawtooth(levels)
    x = jnp.arange(129, dtype=jnp.result_type(float)) / 128
    expected = np.asarray(x)
    for _ in range(levels):
        expected = np.where(expected < 0.5, 2 * expected, 2 - 2 * expected)
    np.testing.assert_array_equal(net.apply(params, x[:, None])[:, 0], expected)
    found = theory.regions_on_line(net, params, [0.0], [1.0])
    assert found.pieces() == 2**levels
    np.testing.assert_array_equal(found.breaks, np.arange(1, 2**levels) / 2**levels)
    np.testing.assert_array_equal(np.abs(found.slopes), 2.0**levels)


def test_pieces_on_a_line_are_those_of_activation_patterns_on_a_fine_grid(key):
    net = relu_net(3, 12)
    params = net.init(key, (3,))
    ends = np.asarray(jax.random.normal(jax.random.key(1), (2, 3)), np.float64)
    found = theory.regions_on_line(net, params, *ends)
    t = np.sort(np.concatenate([found.breaks, [0.0, 1.0]]))
    # Between neighbouring breaks nothing changes, and across each exactly one neuron does.
    inner = np.concatenate([t[:-1] + s * np.diff(t) for s in (0.01, 0.99)])
    on = patterns(net, params, ends[0] + inner[:, None] * (ends[1] - ends[0]))
    left, right = np.split(on, 2)
    np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal((right[:-1] != left[1:]).sum(1), 1)
    layer = np.nonzero(right[:-1] != left[1:])[1] // 12
    np.testing.assert_array_equal(layer, found.layers)
    assert found.regions == len(t) - 1 > 10
    assert found.pieces() <= found.regions


def test_slopes_are_derivatives_of_the_network(key):
    net = relu_net(2, 10, outputs=2)
    params = net.init(key, (4,))
    ends = jax.random.normal(jax.random.key(1), (2, 4))
    found = theory.regions_on_line(net, params, *ends)
    t = np.concatenate([[0.0], found.breaks, [1.0]])
    middle = jnp.asarray((t[1:] + t[:-1])[:, None] / 2, ends.dtype)
    wide = np.diff(t) > 1e-3  # float32 networks switch elsewhere by rounding
    at = ends[:1] + middle * (ends[1:] - ends[:1])
    _, slopes = jax.jvp(
        lambda x: net.apply(params, x), (at,), (jnp.broadcast_to(ends[1:] - ends[:1], at.shape),)
    )
    assert_close(np.asarray(slopes)[wide], found.slopes[wide], factor=100)


def test_expected_breaks_are_exact_for_one_hidden_layer_and_right_for_wide_deep_ones():
    start, end = np.array([0.3, -1.0, 0.4]), np.array([1.0, 0.5, -0.7])
    net, seeds = relu_net(3, 100), 40
    keys = jax.random.split(jax.random.key(0), seeds)
    counts = np.zeros((seeds, 3))
    for i, key in enumerate(keys):
        found = theory.regions_on_line(net, net.init(key, (3,)), start, end)
        counts[i] = np.bincount(found.layers, minlength=3)
    expected = theory.expected_regions_on_line(net, start, end)
    error = counts.std(0, ddof=1) / seeds**0.5
    z = (counts.mean(0) - expected) / error
    assert abs(z[0]) < 4
    # Layers before the others are finite: a relative correction of order 1 / width.
    assert (np.abs(counts.mean(0) - expected) < 4 * error + 0.03 * expected).all()
    # The first layer is a probability in closed form: the angle of both ends, over pi.
    ends = np.stack([start, end]) * 2**0.5 / 3**0.5
    vectors = np.concatenate([ends, [[0.3], [0.3]]], axis=1)
    cosine = vectors[0] @ vectors[1] / np.prod(np.linalg.norm(vectors, axis=1))
    assert expected[0] == pytest.approx(100 * np.arccos(cosine) / np.pi, rel=1e-12)


def test_regions_of_one_hidden_layer_are_those_of_an_arrangement_of_lines(key):
    net = relu_net(1, 9)
    params = net.init(key, (2,))
    corner, u, v = np.array([-2.0, -2.0]), np.array([4.0, 0.0]), np.array([0.0, 4.0])
    found = theory.regions_in_plane(net, params, corner, u, v)
    weights, bias = theory.affine.affine_steps(net, params)[0]
    corners = corner + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * 4.0
    values = corners @ weights + bias
    lines = int(((values.min(0) < 0) & (values.max(0) > 0)).sum())
    crossings = 0
    for i in range(9):
        for j in range(i):
            at = np.linalg.solve(weights[:, [i, j]].T, -bias[[i, j]])
            crossings += bool((np.abs(at) < 2).all())
    assert crossings > 3
    assert found.regions == 1 + lines + crossings


def test_regions_in_a_plane_tile_it_and_have_their_own_patterns_and_gradients(key):
    net = relu_net(3, 7)
    params = net.init(key, (5,))
    origin, u, v = np.asarray(jax.random.normal(jax.random.key(2), (3, 5)), np.float64)
    found = theory.regions_in_plane(net, params, origin, 3 * u, 3 * v)
    area, seen = 0.0, set()
    for polygon in found.polygons:
        x, y = polygon.T
        area += (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2
        middle = polygon.mean(0)
        corners = middle + 0.999 * (polygon - middle)
        on = patterns(net, params, origin + corners @ np.stack([3 * u, 3 * v]))
        assert (on == on[0]).all()
        seen.add(on[0].tobytes())
    assert area == pytest.approx(1, rel=1e-9)
    # All are different, which convex regions of one pattern each must be.
    assert len(seen) == found.regions > 20
    on_edge = theory.regions_on_line(net, params, origin, origin + 3 * u).regions
    touching = sum(bool((p[:, 1] == 0).sum() > 1) for p in found.polygons)
    assert touching == on_edge
    chosen = max(range(found.regions), key=lambda i: np.ptp(found.polygons[i], axis=0).min())
    middle = jnp.asarray(origin + found.polygons[chosen].mean(0) @ np.stack([3 * u, 3 * v]))
    gradient = jax.grad(lambda x: net.apply(params, x[None])[0, 0])(
        middle.astype(params[0]["w"].dtype)
    )
    sides = np.stack([3 * u, 3 * v])
    assert_close(found.gradients[chosen, :, 0], sides @ np.asarray(gradient), factor=1e3)


@pytest.mark.slow
def test_lengths_of_wide_networks_are_those_of_their_kernels(key):
    net, seeds = relu_net(3, 300, 2.0, 0.5), 6
    angle = np.linspace(0, 2 * np.pi, 400)
    arc = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], 1), jnp.result_type(float))
    keys = jax.random.split(key, seeds)
    found = [theory.trajectory_lengths(net, net.init(k, (2,)), arc)[:-1] for k in keys]
    expected = theory.expected_trajectory_lengths(net, arc)[:-1]
    error = np.std(found, axis=0, ddof=1) / seeds**0.5
    assert (np.abs(np.mean(found, 0) - expected) < 4 * error + 0.01 * expected).all()
    # Growth by sqrt(w_std^2 / 2) from one Dense to the next, but for chords of finite length.
    np.testing.assert_allclose(expected[3:6:2] / expected[1:5:2], 2**0.5, rtol=5e-3)


def test_what_is_not_counted_is_refused(key):
    net = ntk.nn.Sequential(ntk.nn.Dense(3), ntk.nn.Erf(), ntk.nn.Dense(1))
    params = net.init(key, (2,))
    with pytest.raises(InputError, match="Erf is not piecewise linear"):
        theory.regions_on_line(net, params, [0.0, 0.0], [1.0, 1.0])
    with pytest.raises(InputError, match="in turns"):
        theory.expected_regions_on_line(net, [0.0, 0.0], [1.0, 1.0])
    net = relu_net(1, 3)
    params = net.init(key, (2,))
    with pytest.raises(InputError, match="one finite vector of 2"):
        theory.regions_on_line(net, params, [0.0], [1.0])
    with pytest.raises(InputError, match="largest=1"):
        theory.regions_in_plane(net, params, [-9.0, -9.0], [18.0, 0.0], [0.0, 18.0], largest=1)
    with pytest.raises(InputError, match="levels"):
        theory.sawtooth(0)
    with pytest.raises(InputError, match="at least two"):
        theory.trajectory_lengths(net, params, jnp.ones((1, 2)))
