"""Channels that reach a readout one by one: found where they do, never where they do not."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import ntk_lab as ntk
from ntk_lab.empirical import engine
from ntk_lab.empirical.arguments import arguments
from ntk_lab.empirical.structured.build import build
from tests.tolerance import assert_close

CHANNELS = 6


def convolution(x, w):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def pooled(h):
    return h.mean((1, 2))


def windows(h):
    return lax.reduce_window(h, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def squeezed(h):
    return h * jax.nn.sigmoid(pooled(h) @ jnp.ones((CHANNELS, CHANNELS)))[:, None, None]


# From what follows a convolution with a bias to whether its channels stay apart.
BEHIND = {
    "tanh": (lambda h, p: pooled(jnp.tanh(h)) @ p["v"], True),
    "relu": (lambda h, p: pooled(jax.nn.relu(h)) @ p["v"], True),
    "skip": (lambda h, p: pooled(jnp.tanh(h) + jnp.sin(h) * h) @ p["v"], True),
    "frozen norm": (
        lambda h, p: pooled(jnp.tanh(h * p["scale"][None, None, None])) @ p["v"],
        True,
    ),
    "windows": (lambda h, p: pooled(jnp.tanh(windows(jnp.tanh(h)))) @ p["v"], True),
    "maxima": (lambda h, p: jnp.tanh(h).max((1, 2)) @ p["v"], True),
    "channels first": (lambda h, p: jnp.tanh(h.transpose(0, 3, 1, 2)).mean((2, 3)) @ p["v"], True),
    "reshaped": (lambda h, p: jnp.tanh(h.reshape(len(h), -1, CHANNELS)).sum(1) @ p["v"], True),
    "no readout": (lambda h, p: pooled(jnp.tanh(h)), True),
    "two readouts": (
        lambda h, p: (lambda z: z @ p["v"] + jnp.tanh(z @ p["v"][:, ::-1]))(pooled(jnp.tanh(h))),
        True,
    ),
    "reversed": (lambda h, p: pooled(jnp.tanh(h) * h[..., ::-1]) @ p["v"], False),
    "squeeze and excitation": (lambda h, p: pooled(jnp.tanh(squeezed(h))) @ p["v"], False),
    "softmax": (lambda h, p: pooled(jax.nn.softmax(h, axis=-1)) @ p["v"], False),
    "layer norm": (
        lambda h, p: pooled(jnp.tanh(h - h.mean(-1, keepdims=True))) @ p["v"],
        False,
    ),
    "flattened": (lambda h, p: jnp.tanh(h).reshape(len(h), -1)[:, : 2 * CHANNELS], False),
    "two poolings": (
        lambda h, p: pooled(jnp.tanh(h)) @ p["v"] + jnp.tanh(h).max((1, 2)) @ p["v"],
        False,
    ),
    "not pooled": (lambda h, p: jnp.tanh(h)[:, 0, 1] @ p["v"] + jnp.tanh(h)[:, 2, 1, :3], False),
    "before pooling": (lambda h, p: pooled(jnp.tanh(h @ p["m"])) @ p["v"], False),
}


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(params=list(BEHIND))
def network(request):
    behind, apart = BEHIND[request.param]
    params = {
        "w": normal(0, 3, 3, 2, CHANNELS) / 3,
        "b": normal(1, CHANNELS),
        "v": normal(2, CHANNELS, 3),
        "m": normal(3, CHANNELS, CHANNELS),
        "scale": normal(4, CHANNELS),
    }

    def f(p, x):
        return behind(convolution(x, p["w"]) + p["b"][None, None, None], p)

    return f, params, normal(5, 4, 4, 4, 2), apart


def test_channels_are_apart_only_where_no_operation_mixes_them(network):
    f, params, x, apart = network
    args = arguments(f, params, x, None, None)
    program = build(f, args.signature(structured=True, merge=True))
    (part,) = [p for p in program.parts if args.paths[p.leaf] == "w"]
    assert (part.readout is not None) == apart


@pytest.mark.parametrize("mode", ["full", "trace"])
def test_kernels_by_channel_are_exact(network, mode):
    f, params, x, _ = network
    expected = ntk.empirical.ntk(f, params, x, outputs=mode, method="jacobian")
    for x1, x2, some in ((x, None, expected), (x[:1], x[1:], expected[:1, 1:])):
        args = arguments(f, params, x1, x2, None)
        program = build(f, args.signature(structured=True, merge=True))
        job = engine.job(args, program, mode, jnp.eye(args.outputs, dtype=x.dtype), 1e9)
        form = {"form": "readout", "early": mode == "trace"}
        parts = [p if p.readout is None else replace(p, **form) for p in job.parts]
        (kernel,) = engine.kernels(replace(job, parts=parts), (tuple(range(len(parts))),))
        assert_close(kernel, some, factor=20 if x.dtype == jnp.float32 else 4)
