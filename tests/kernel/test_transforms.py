"""Kernels under jit, vmap and export."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import ntk_lab as ntk
from ntk_lab.errors import InputError
from tests.tolerance import assert_close

NET = ntk.nn.Sequential(ntk.nn.Dense(16, 1.4, 0.1), ntk.nn.Relu(), ntk.nn.Dense(1))


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 4)), jnp.result_type(float))


def test_jit_changes_nothing(x):
    for got, k in zip(jax.jit(NET.kernel)(x[0], x[1]), NET.kernel(x[0], x[1]), strict=True):
        assert_close(got, k, factor=0.1)


def test_vmap_gives_the_kernel_of_each_batch(x):
    stacked = jax.vmap(NET.kernel)(x, x[::-1])
    for i in range(3):
        for got, k in zip(stacked, NET.kernel(x[i], x[2 - i]), strict=True):
            assert_close(got[i], k, factor=0.1)


def test_the_jacobian_matches_between_forward_and_reverse_mode(x):
    def f(a):
        return NET.kernel(a, x[1, :2]).ntk[:2]

    assert_close(jax.jacfwd(f)(x[0]), jax.jacrev(f)(x[0]))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_kernels_lower_for_every_platform(platform, x):
    """Nothing in a kernel is of the processor that it is developed on."""
    for activation in (ntk.nn.Relu(), ntk.nn.Erf(), ntk.nn.Gelu(), ntk.nn.Tanh()):
        net = ntk.nn.Sequential(ntk.nn.Dense(16), activation, ntk.nn.Dense(1))
        exported = export.export(jax.jit(net.kernel), platforms=[platform])(x[0], x[1])
        assert exported.platforms == (platform,)
        assert [a.shape for a in exported.out_avals] == [(5, 5), (5, 5)]


def test_an_exported_kernel_computes_the_same(x):
    exported = export.export(jax.jit(NET.kernel))(x[0], x[1])
    for got, k in zip(exported.call(x[0], x[1]), NET.kernel(x[0], x[1]), strict=True):
        assert_close(got, k, factor=0.1)


def test_data_that_a_compiled_function_closes_over_are_still_checked(x):
    scaled = jax.jit(lambda factor: NET.kernel(factor * x[0], x[1]).ntk)
    assert_close(scaled(jnp.ones(())), NET.kernel(x[0], x[1]).ntk, factor=0.1)
    broken = x[0] * jnp.nan
    with pytest.raises(InputError, match="NaN"):
        jax.jit(lambda factor: factor * NET.kernel(broken).ntk)(1.0)
