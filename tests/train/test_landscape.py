"""Lines and planes of the loss against the loss itself, and barriers that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lab.errors import InputError
from ntk_lab.train import (
    LossLine,
    hessian_eigenvalues,
    loss_along_line,
    loss_plane,
    random_direction,
)
from tests.tolerance import assert_close


def draw(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


START = {"a": draw(3, 5), "b": draw(5), "c": draw(5, 2)}
END = jax.tree.map(lambda p: p + 0.5 * jnp.cos(3 * p), START)
X, Y = draw(8, 3), draw(8, 2)


def f(p, x):
    return jnp.tanh(x @ p["a"] + p["b"][None]) @ p["c"]


def squared(p, x=X, y=Y):
    return float(((f(p, x) - y) ** 2).sum()) / (2 * len(x))


def between(s):
    return jax.tree.map(lambda a, b: (1 - s) * a + s * b, START, END)


def test_the_loss_along_a_line_is_the_loss_at_its_points():
    test = X[:3] + 0.1, Y[:3]
    found = loss_along_line(f, START, END, X, Y, points=5, test=test)
    expected = [squared(between(s)) for s in np.linspace(0, 1, 5)]
    assert_close(jnp.asarray(found.train, float), expected)
    expected = [squared(between(s), *test) for s in np.linspace(0, 1, 5)]
    assert_close(jnp.asarray(found.test, float), expected)
    cut = loss_along_line(f, START, END, X, Y, points=[-0.5, 0.0, 0.3, 1.0, 1.5], batch=3)
    assert_close(jnp.asarray(cut.train[0], float), squared(between(-0.5)))
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == ["start", "train", "test"]


def test_two_minima_of_a_double_well_have_the_barrier_between_them():
    def well(w, x):
        return x * (w**2).sum()  # L = (|w|^2 - 1)^2 / 2

    one = jnp.ones((1, 1))
    line = loss_along_line(well, -jnp.ones(1), jnp.ones(1), one, one, points=101)
    assert line.barrier() == pytest.approx(0.5)
    assert line.rise() == pytest.approx(0.5)
    down = loss_along_line(well, 3 * jnp.ones(1), jnp.ones(1), one, one, points=101)
    assert down.rise() == 0
    assert down.barrier() == 0  # convex on the way
    both = loss_along_line(well, -2 * jnp.ones(1), jnp.ones(1), one, one, points=301)
    assert both.train[0] == pytest.approx(4.5)
    assert both.rise() == pytest.approx(0.5, rel=1e-3)


def test_barriers_are_those_of_the_points_between_the_ends():
    line = LossLine(np.array([-1.0, 0, 0.5, 1, 2]), np.array([9.0, 2, 3, 1, 8]), None)
    assert line.barrier() == 1.5
    assert line.rise() == 1
    with pytest.raises(InputError, match="no loss 'test'"):
        line.barrier("test")


def test_a_linear_model_has_no_barrier():
    found = loss_along_line(lambda w, x: x @ w, draw(3, 2), draw(2, 3).T, X, Y)
    assert found.barrier() <= 1e-6


def test_integers_stay_those_of_the_start():
    def g(p, x):
        return f(p, x) * p["n"].astype(x.dtype)

    ends = {**START, "n": jnp.int32(1)}, {**END, "n": jnp.int32(5)}
    found = loss_along_line(g, *ends, X, Y, points=2)
    assert_close(jnp.asarray(found.train, float), [squared(START), squared(END)])


def test_a_plane_of_eigenvectors_of_a_quadratic_is_its_paraboloid():
    w = jnp.linalg.lstsq(X, Y)[0]
    tight = 1e-10 if jax.config.jax_enable_x64 else 1e-5
    pairs = hessian_eigenvalues(lambda w, x: x @ w, w, X, Y, top=2, tol=tight)
    plane = loss_plane(lambda w, x: x @ w, w, X, Y, directions=pairs.directions, span=2, points=5)
    values = np.asarray(pairs.eigenvalues, np.float64)
    a, b = np.meshgrid(plane.a, plane.b)
    rise = (values[0] * a**2 + values[1] * b**2) / 2
    assert_close(jnp.asarray(plane.loss - plane.loss[2, 2], float), rise, factor=30)


def test_random_directions_have_the_size_of_the_parameters_filter_by_filter():
    found = random_direction(START, jax.random.key(1))
    for name in ("a", "c"):
        norms = [np.linalg.norm(np.asarray(tree[name]), axis=0) for tree in (found, START)]
        np.testing.assert_allclose(norms[0], norms[1], rtol=1e-5)
    assert not found["b"].any()
    rows = random_direction(START, jax.random.key(1), filter_axis=0)["a"]
    np.testing.assert_allclose(
        np.linalg.norm(rows, axis=1), np.linalg.norm(START["a"], axis=1), rtol=1e-5
    )
    plane = loss_plane(f, START, X, Y, key=jax.random.key(3), points=3, span=0.5)
    assert plane.loss[1, 1] == pytest.approx(squared(START), rel=1e-5)
    corner = jax.tree.map(lambda p, d, e: p + 0.5 * d - 0.5 * e, START, *plane.directions)
    assert plane.loss[0, 2] == pytest.approx(squared(corner), rel=1e-5)


@pytest.mark.parametrize(
    ("draw_it", "words"),
    [
        (lambda: loss_along_line(f, START, {"a": START["a"]}, X, Y), "expected equal"),
        (lambda: loss_along_line(f, START, {**END, "b": draw(3, 5)}, X, Y), "have shapes"),
        (lambda: loss_along_line(f, START, END, X, Y, points=1), "2 ends"),
        (lambda: loss_along_line(f, START, END, X, Y, points=[0, 0.5]), "include 0 and 1"),
        (lambda: loss_plane(f, START, X, Y), "a key that decides"),
        (lambda: loss_plane(f, START, X, Y, key=jax.random.key(0), points=1), "at least 2"),
        (lambda: loss_plane(f, START, X, Y, directions=(START, X)), "expected equal"),
    ],
)
def test_what_has_no_landscape_is_explained(draw_it, words):
    with pytest.raises(InputError, match=words):
        draw_it()
