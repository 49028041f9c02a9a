"""Silent alignment against its differential equation and networks; the neural feature ansatz."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

import ntk_lab as ntk
from ntk_lab.errors import InputError
from tests.tolerance import assert_close

theory = ntk.theory.silent_alignment


@pytest.mark.parametrize(("s", "e"), [(1.0, 1e-3), (2.0, 0.5), (0.3, 2.0)])
def test_the_closed_form_solves_its_differential_equation(s, e):
    t = np.linspace(0, 20 / s, 30)
    found = theory(t, target_norm=s, scale=e, dimension=7)

    def slope(_, state):
        r, p = state
        return [2 * (s - r) * p, 2 * (s - r) * r]

    solved = solve_ivp(slope, (0, t[-1]), [0, e], t_eval=t, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(found.learnt, solved.y[0], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.kernel_scale, solved.y[1], rtol=1e-8)


def test_the_end_is_the_target_and_late_losses_keep_their_digits():
    found = theory([0.0, 30.0, 31.0], target_norm=1.0, scale=0.1, dimension=3)
    assert found.learnt[0] == pytest.approx(0, abs=1e-15)
    assert found.loss[2] / found.loss[1] == pytest.approx(np.exp(-4 * np.hypot(1, 0.1)), rel=1e-6)
    assert found.loss[2] < 1e-50


def test_times_are_those_at_which_the_curves_are_halfway():
    arguments = {"target_norm": 1.5, "scale": 1e-3, "dimension": 20}
    start, end = theory([0.0, 1e3], **arguments).alignment
    now = theory([0.0], **arguments)
    at = theory([now.aligned_at, now.learnt_at], **arguments)
    assert at.alignment[0] == pytest.approx((start + end) / 2, rel=1e-9)
    assert at.learnt[1] == pytest.approx(0.75, rel=1e-9)
    # Silent: the first does not depend on the scale, the second as its logarithm.
    less = theory([0.0], **arguments | {"scale": 1e-6})
    assert less.aligned_at == pytest.approx(now.aligned_at, rel=0.01)
    assert less.learnt_at - now.learnt_at == pytest.approx(np.log(1e3) / 3, rel=0.01)


def test_wide_networks_follow_it():
    n, d, width, s, e, seeds = 32, 4, 1000, 1.0, 0.05, 6
    x = np.linalg.qr(np.random.default_rng(0).normal(size=(n, d)))[0] * n**0.5
    x = jnp.asarray(x, jnp.result_type(float))
    y = s * x[:, :1]

    def draw(key):
        a, b = jax.random.split(key)
        std = (e / width) ** 0.5
        return std * jax.random.normal(a, (d, width)), std * jax.random.normal(b, (width, 1))

    run = ntk.train.ensemble(
        lambda p, x: (x @ p[0]) @ p[1],
        jax.vmap(draw)(jax.random.split(jax.random.key(0), seeds)),
        x, y, optimizer=optax.sgd(4e-3), steps=750, record=(200, 400, 750),
        kernel_points=x, kernel="combined",
    )  # fmt: skip
    expected = theory(4e-3 * np.array(run.steps), target_norm=s, scale=e, dimension=d)
    learnt = np.einsum("stnc,nc->st", run.train, y) / (n * s)
    kernels = np.asarray(run.ntk)
    target = np.asarray(y[:, 0])
    aligned = np.einsum("i,stij,j->st", target, kernels, target)
    aligned /= (target**2).sum() * np.linalg.norm(kernels, axis=(2, 3))
    for found, theirs in ((learnt, expected.learnt), (aligned, expected.alignment)):
        error = found.std(0, ddof=1) / seeds**0.5
        # Steps are finite, which shifts times by a share of learning rate x curvature.
        assert (np.abs(found.mean(0) - theirs) < 4 * error + 0.01).all()


def test_bad_numbers_are_refused():
    for change in ({"target_norm": 0.0}, {"scale": -1.0}, {"dimension": 0}):
        with pytest.raises(InputError, match="positive"):
            theory([1.0], **({"target_norm": 1.0, "scale": 0.1, "dimension": 3} | change))
    with pytest.raises(InputError, match=">= 0"):
        theory([-1.0], target_norm=1.0, scale=0.1, dimension=3)


def test_the_feature_ansatz_holds_where_both_sides_are_known(key):
    net = ntk.nn.Sequential(ntk.nn.Dense(6), ntk.nn.Identity(), ntk.nn.Dense(4), ntk.nn.Dense(1))
    params = list(net.init(key, (3,)))
    x = jax.random.normal(key, (10, 3))
    u, v = jnp.ones((3, 1)), jax.random.normal(key, (1, 6))
    params[0] = {"w": u @ v}  # rank one: gradients can only point along u
    first, second = ntk.theory.feature_ansatz(net, tuple(params), x)
    assert (first.layer, second.layer) == (0, 2)
    assert first.correlation == pytest.approx(1, abs=1e-5)
    chain = params[2]["w"] @ params[3]["w"] / (6 * 4) ** 0.5
    assert_close(second.gradients, chain @ chain.T, factor=10)
    assert 0 < second.correlation < 0.999
    with pytest.raises(InputError, match="nothing to compare"):
        ntk.theory.feature_ansatz(ntk.nn.Sequential(ntk.nn.Dense(1)), params[:1], x)
