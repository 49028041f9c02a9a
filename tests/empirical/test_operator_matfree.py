"""Operators are what matfree takes, and both find the same: an oracle and an example of use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.solve import gauss, lanczos
from tests.tolerance import assert_close

matfree = pytest.importorskip("matfree")


@pytest.fixture(scope="module")
def operator():
    def normal(seed, *shape):
        return jax.random.normal(jax.random.key(seed), shape)

    params = {"w": normal(0, 4, 12), "v": normal(1, 12, 3)}
    f = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"] / 4  # noqa: E731
    return ntk.empirical.operator(f, params, normal(2, 20, 4)), normal(3, 60)


def test_lanczos_iterations_agree(operator):
    from matfree import decomp

    k, v = operator
    _, tridiagonal, *_ = decomp.tridiag_sym(12)(lambda s: k @ s, v)
    nodes, _ = gauss(lanczos(k.__matmul__, v[:, None], 12))
    assert_close(nodes[0], jnp.linalg.eigvalsh(tridiagonal), factor=100)


def test_eigenvalues_agree(operator):
    from matfree import decomp, eig

    k, v = operator
    values, _ = eig.eigh_partial(decomp.tridiag_sym(40))(lambda s: k @ s, v)
    found = k.eigsh(4).eigenvalues
    assert_close(found, np.sort(np.asarray(values))[::-1][:4], factor=100)


def test_estimators_of_matfree_take_the_operator(operator):
    from matfree import stochtrace

    k, v = operator
    sampler = stochtrace.sampler_normal(v, num=20)
    estimate = stochtrace.estimator_leave_one_out_mean_and_sem(
        stochtrace.leave_one_out_xtrace(), sampler=sampler
    )
    with jax.numpy_rank_promotion("allow"):
        mean, _ = jax.jit(lambda key: estimate(lambda s: k @ s, key))(jax.random.key(4))
    # Their error is correlated between samples and no standard error: a loose bound.
    np.testing.assert_allclose(mean, k.trace().value, rtol=0.1)
