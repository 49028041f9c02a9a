"""Deep stacks are evaluated as loops, which changes nothing but the size of the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.nn import sequential
from tests.tolerance import assert_close

nn = ntk.nn


def dense(w_std=1.4, b_std=0.2):
    return nn.Dense(8, w_std, b_std)


def conv(w_std=1.4):
    return nn.Conv(8, (3,), w_std=w_std, b_std=0.2)


STACKS = {
    "fully connected": [m for _ in range(9) for m in (dense(), nn.Relu())],
    "another scale in each layer": [m for k in range(9) for m in (dense(1 + k / 9), nn.Erf())],
    "residual": [nn.Residual(nn.Sequential(nn.Relu(), dense())) for _ in range(9)],
    "convolutions, pooled": [m for _ in range(9) for m in (conv(), nn.Relu())]
    + [nn.GlobalAvgPool()],
    "convolutions, flattened": [m for _ in range(9) for m in (conv(), nn.Relu())] + [nn.Flatten()],
}


def network(name):
    first = conv() if name.startswith("conv") else dense()
    return nn.Sequential(first, *STACKS[name], dense())


def inputs(name):
    shape = (3, 6, 2) if name.startswith("conv") else (3, 5)
    return jax.random.normal(jax.random.key(0), shape)


def kernels(net, x):
    """By the portable way: under ``jit`` the data are not known."""
    return jax.jit(lambda x: tuple(net.kernel(x)))(x)


def largest_program(net, x):
    return len(str(jax.make_jaxpr(lambda x: tuple(net.kernel(x)))(x)))


@pytest.mark.parametrize("name", STACKS)
def test_a_loop_has_the_kernel_of_the_layers_written_out(monkeypatch, name):
    net, x = network(name), inputs(name)
    looped, size = kernels(net, x), largest_program(net, x)
    monkeypatch.setattr(sequential, "_LOOP_FROM", 1000)
    jax.clear_caches()
    for actual, expected in zip(looped, kernels(net, x), strict=True):
        assert_close(actual, expected)
    assert 2 * size < largest_program(net, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fully connected", "another scale in each layer"])
def test_scales_have_the_gradients_of_the_layers_written_out(monkeypatch, name):
    net, x = network(name), inputs(name)
    looped = jax.grad(lambda net: net.kernel(x).ntk.sum())(net)
    monkeypatch.setattr(sequential, "_LOOP_FROM", 1000)
    jax.clear_caches()
    expected = jax.grad(lambda net: net.kernel(x).ntk.sum())(net)
    leaves = (np.asarray(jax.tree.leaves(tree)) for tree in (looped, expected))
    assert_close(*leaves, factor=10)


def test_a_program_of_a_hundred_layers_is_no_longer_than_of_twenty():
    blocks = STACKS["fully connected"][:2]
    sizes = [
        largest_program(nn.Sequential(*blocks * depth, dense()), jnp.ones((2, 3)))
        for depth in (20, 100)
    ]
    assert sizes[1] < 1.01 * sizes[0]


def test_masks_pass_through_a_loop(monkeypatch):
    net, x = network("convolutions, pooled"), inputs("convolutions, pooled")
    x = nn.Masked(x, jnp.arange(6)[None, :] < jnp.array([[6], [4], [3]]))
    looped = net.kernel(x)
    monkeypatch.setattr(sequential, "_LOOP_FROM", 1000)
    jax.clear_caches()
    for actual, expected in zip(looped, net.kernel(x), strict=True):
        assert_close(actual, expected)
