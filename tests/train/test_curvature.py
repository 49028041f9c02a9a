"""Curvature of training losses against Hessians that are formed in full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab import losses
from ntk_lab.errors import ConvergenceError, InputError
from ntk_lab.train import curvature_along, hessian_eigenvalues
from tests.tolerance import assert_close

TIGHT = 1e-10 if jax.config.jax_enable_x64 else 1e-5


def draw(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


PARAMS = {"a": draw(3, 5), "b": draw(5), "c": draw(5, 3)}
X, Y = draw(8, 3), draw(8, 3)
LABELS = jnp.array([0, 2, 1, 1, 0, 2, 2, 1])


def f(p, x):
    return jnp.tanh(x @ p["a"] + p["b"][None]) @ p["c"]


def dense(f, params, x, y, loss):
    """Loss, Hessian and Gauss-Newton part, formed in full."""
    vector, fill = jax.flatten_util.ravel_pytree(params)

    def measured(outputs):
        return losses.mean_loss(losses.read_loss(loss), outputs, y)

    def outputs(v):
        return f(fill(v), x)

    @jax.jit
    def formed(vector):
        j = jax.jacobian(outputs)(vector)
        inner = jax.hessian(measured)(outputs(vector))
        part = jnp.einsum("iap,iajb,jbq->pq", j, inner, j)
        return measured(outputs(vector)), jax.hessian(lambda v: measured(outputs(v)))(vector), part

    return formed(vector)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy", losses.Huber(0.5)])
def test_eigenvalues_are_those_of_the_hessian_that_is_formed(loss):
    _, hessian, gauss_newton = dense(f, PARAMS, X, Y, loss)
    for matrix, part in ((hessian, False), (gauss_newton, True)):
        expected = np.linalg.eigvalsh(np.asarray(matrix))[::-1][:3]
        found = hessian_eigenvalues(
            f, PARAMS, X, Y, loss=loss, top=3, gauss_newton=part, tol=TIGHT, block=1
        )
        assert_close(found.eigenvalues, expected, factor=10)
        for value, direction in zip(found.eigenvalues, found.directions, strict=True):
            assert jax.tree.structure(direction) == jax.tree.structure(PARAMS)
            v, _ = jax.flatten_util.ravel_pytree(direction)
            residual = float(jnp.linalg.norm(matrix @ v - value * v))
            assert residual <= 3 * TIGHT * float(found.eigenvalues[0])


def test_residuals_bound_the_error_where_iterations_stop_early():
    _, hessian, _ = dense(f, PARAMS, X, Y, "squared")
    exact = np.linalg.eigvalsh(np.asarray(hessian))
    rough = hessian_eigenvalues(f, PARAMS, X, Y, top=2, tol=0.2, block=1)
    for value, bound in zip(rough.eigenvalues, rough.residual_norms, strict=True):
        assert bound <= 0.2 * rough.eigenvalues[0]
        assert np.abs(exact - float(value)).min() <= float(bound) * 1.001
    with pytest.raises(ConvergenceError, match="above tol") as caught:
        hessian_eigenvalues(f, PARAMS, X, Y, top=2, tol=TIGHT, block=1, max_products=5)
    assert caught.value.result.eigenvalues[0] <= exact[-1] * 1.001
    assert len(caught.value.result.directions) == 2


def test_the_gauss_newton_part_of_squared_error_has_the_eigenvalues_of_the_ntk():
    found = hessian_eigenvalues(f, PARAMS, X, Y, top=3, gauss_newton=True, tol=TIGHT)
    kernel = np.asarray(ntk.empirical.ntk(f, PARAMS, X)).transpose(0, 2, 1, 3).reshape(24, 24)
    assert_close(found.eigenvalues, np.linalg.eigvalsh(kernel)[::-1][:3] / 8, factor=10)


def test_the_first_eigenvalue_is_the_sharpness_that_ensembles_record():
    several = hessian_eigenvalues(f, PARAMS, X, Y, top=2, tol=TIGHT)
    one = ntk.train.sharpness(f, PARAMS, X, Y, key=jax.random.key(5))
    assert abs(float(several.eigenvalues[0]) - one.value) <= 1e-3 * one.value


def test_negative_curvature_does_not_hide_the_largest_eigenvalue():
    found = hessian_eigenvalues(
        lambda w, x: x @ w**3, -jnp.ones((3, 1)), X, 50 + Y[:, :1], tol=1e-4
    )
    _, hessian, _ = dense(lambda w, x: x @ w**3, -jnp.ones((3, 1)), X, 50 + Y[:, :1], "squared")
    values = np.linalg.eigvalsh(np.asarray(hessian))
    assert values[0] < -0.1 * values[-1]
    assert_close(found.eigenvalues[0], values[-1], factor=100)


def test_blocks_of_examples_frozen_integers_and_vectors_of_outputs():
    whole = hessian_eigenvalues(f, PARAMS, X, Y, top=2, tol=TIGHT)
    cut = hessian_eigenvalues(f, PARAMS, X, Y, top=2, tol=TIGHT, batch=3)
    assert_close(cut.eigenvalues, whole.eigenvalues, factor=10)
    params = {**PARAMS, "n": jnp.int32(2)}
    scaled = hessian_eigenvalues(
        lambda p, x: f(p, x) * p["n"].astype(x.dtype) / 2, params, X, Y, top=2, tol=TIGHT
    )
    assert_close(scaled.eigenvalues, whole.eigenvalues, factor=10)
    assert scaled.directions[0]["n"] == 2
    single = hessian_eigenvalues(lambda p, x: f(p, x)[:, 0], PARAMS, X, Y[:, 0], tol=TIGHT)
    column = hessian_eigenvalues(lambda p, x: f(p, x)[:, :1], PARAMS, X, Y[:, :1], tol=TIGHT)
    assert_close(single.eigenvalues, column.eigenvalues)


def test_class_numbers_are_centred_one_hot_targets():
    one_hot = jax.nn.one_hot(LABELS, 3)
    found = hessian_eigenvalues(f, PARAMS, X, LABELS, loss="cross_entropy", tol=TIGHT)
    same = hessian_eigenvalues(f, PARAMS, X, one_hot, loss="cross_entropy", tol=TIGHT)
    assert_close(found.eigenvalues, same.eigenvalues)


def test_curvature_along_a_run_is_that_of_its_checkpoints():
    run = {0: PARAMS, 7: jax.tree.map(lambda p: 0.8 * p, PARAMS)}
    seen = []
    found = curvature_along(f, run, X, Y, top=2, tol=TIGHT, progress=lambda *a: seen.append(a))
    assert seen == [(1, 2), (2, 2)]
    assert found.steps == (0, 7)
    for i, params in enumerate(run.values()):
        value, hessian, gauss_newton = dense(f, params, X, Y, "squared")
        assert_close(jnp.asarray(found.loss[i], float), value)
        for values, matrix in ((found.hessian, hessian), (found.ntk, gauss_newton)):
            expected = np.linalg.eigvalsh(np.asarray(matrix))[::-1][:2]
            assert_close(jnp.asarray(values[i], float), expected, factor=10)
    np.testing.assert_allclose(found.largest_learning_rate, 2 / found.hessian[:, 0])
    assert (found.hessian_error <= TIGHT * found.hessian[:, :1]).all()
    lines = str(found).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:2] == ["step", "loss"]
    kernel_only = curvature_along(f, [PARAMS], X, LABELS, loss="cross_entropy", hessian=False)
    assert kernel_only.hessian is None
    np.testing.assert_allclose(kernel_only.ntk[0], found.ntk[0, :1], rtol=1e-2)
    assert "Hessian" not in str(kernel_only)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": Y[:, :2]}, r"targets have shape \(8, 2\); expected \(8, 3\)"),
        ({"y": LABELS + 1}, "class numbers from 1 to 3"),
        ({"y": Y * jnp.inf}, "NaN or infinity"),
        ({"loss": "squares"}, "no loss is called"),
        ({"top": 0}, "from 1 to 35"),
        ({"batch": 0}, "at least 1"),
        ({"x": X[:0]}, "no examples"),
        ({"params": {"a": jnp.int32(1)}, "f": lambda p, x: x}, "no floating-point numbers"),
        ({"f": lambda p, x: f(p, x)[:, None]}, r"shape \(8, 1, 3\)"),
    ],
)
def test_what_has_no_curvature_is_explained(change, words):
    with pytest.raises(InputError, match=words):
        hessian_eigenvalues(**{"f": f, "params": PARAMS, "x": X, "y": Y, **change})


def test_nothing_to_compute_is_explained():
    with pytest.raises(InputError, match="nothing to compute"):
        curvature_along(f, [PARAMS], X, Y, hessian=False, ntk=False)
    with pytest.raises(InputError, match="checkpoints is empty"):
        curvature_along(f, [], X, Y)
