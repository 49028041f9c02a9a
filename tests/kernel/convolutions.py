"""What tests of compiled loops over images have in common."""

import jax.numpy as jnp
import numpy as np

import ntk_lab as ntk


def conv(window=(3, 3), **options):
    """A layer with usual scales."""
    return ntk.nn.Conv(8, window, w_std=2**0.5, b_std=0.1, **options)


def inputs(net, batch, seed):
    """Examples of different norms for a network that begins with a convolution."""
    shape = (9, 2) if len(net.layers[0].window) == 1 else (8, 7, 2)
    x = np.random.default_rng(seed).normal(size=(batch, *shape))
    return jnp.asarray(x * np.linspace(0.5, 3, batch).reshape(-1, *(1,) * len(shape)))


def portable(monkeypatch, net, *x):
    """The kernel without compiled loops."""
    monkeypatch.setenv("NTK_LAB_NATIVE", "0")
    kernel = net.kernel(*x)
    monkeypatch.setenv("NTK_LAB_NATIVE", "1")
    return kernel
