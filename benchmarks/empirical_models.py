"""Networks as plain functions ``f(params, x)``, at fixed and at random sizes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def weight(key, *shape):
    return jax.random.normal(key, shape, jnp.float32) / math.sqrt(math.prod(shape[:-1]))


def mlp(key, sizes, n):
    keys = jax.random.split(key, len(sizes))
    shapes = zip(keys, sizes, sizes[1:], strict=False)
    params = [(weight(k, a, b), jnp.zeros(b)) for k, a, b in shapes]

    def f(params, x):
        for i, (w, b) in enumerate(params):
            x = x @ w + b[None]
            x = jax.nn.relu(x) if i < len(params) - 1 else x
        return x

    return f, params, jax.random.normal(keys[-1], (n, sizes[0]), jnp.float32)


def conv(x, w, stride=1):
    names = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=names)


def cnn(key, n, channels=64, layers=4, size=16, outputs=10):
    keys = jax.random.split(key, layers + 2)
    widths = [3] + [channels] * layers
    params = {
        "conv": [
            (weight(k, 3, 3, a, b), jnp.zeros(b))
            for k, a, b in zip(keys, widths, widths[1:], strict=False)
        ],
        "out": (weight(keys[-2], channels, outputs), jnp.zeros(outputs)),
    }

    def f(params, x):
        for w, b in params["conv"]:
            x = jax.nn.relu(conv(x, w) + b[None, None, None])
        w, b = params["out"]
        return x.mean((1, 2)) @ w + b[None]

    return f, params, jax.random.normal(keys[-1], (n, size, size, 3), jnp.float32)


def resnet(key, n, widths=(16, 32, 64), size=16, outputs=10, depth=1):
    """Residual blocks, ``depth`` of each width; widths (64, 128, 256, 512), depth 2: ResNet-18."""
    keys = iter(jax.random.split(key, 5 * depth * len(widths) + 5))
    params = {"stem": weight(next(keys), 3, 3, 3, widths[0]), "blocks": []}
    channels = widths[0]
    for w in [w for w in widths for _ in range(depth)]:
        block = {
            "a": weight(next(keys), 3, 3, channels, w),
            "b": weight(next(keys), 3, 3, w, w),
            "norms": [(jnp.ones(w), jnp.zeros(w)) for _ in range(2)],
        }
        if w != channels:
            block["skip"] = weight(next(keys), 1, 1, channels, w)
        params["blocks"].append(block)
        channels = w
    params["out"] = (weight(next(keys), channels, outputs), jnp.zeros(outputs))

    def frozen_norm(x, p):
        return x * p[0][None, None, None] + p[1][None, None, None]

    def f(params, x):
        x = conv(x, params["stem"])
        for block in params["blocks"]:
            stride = 2 if "skip" in block else 1
            y = jax.nn.relu(frozen_norm(conv(x, block["a"], stride), block["norms"][0]))
            y = frozen_norm(conv(y, block["b"]), block["norms"][1])
            x = jax.nn.relu(y + (conv(x, block["skip"], stride) if "skip" in block else x))
        w, b = params["out"]
        return x.mean((1, 2)) @ w + b[None]

    return f, params, jax.random.normal(next(keys), (n, size, size, 3), jnp.float32)


def layer_norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    x = x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * p[0][None, None] + p[1][None, None]


def transformer(
    key, n, d=128, sequence=32, layers=2, heads=4, outputs=64, vocabulary=64, one_hot=False
):
    keys = iter(jax.random.split(key, 6 * layers + 5))
    norm = (jnp.ones(d), jnp.zeros(d))
    params = {
        "embedding": weight(next(keys), vocabulary, d) * math.sqrt(vocabulary),
        "position": 0.1 * jax.random.normal(next(keys), (sequence, d)),
        "layers": [],
        "norm": norm,
        "out": weight(next(keys), d, outputs),
    }
    for _ in range(layers):
        layer = {m: (weight(next(keys), d, d), jnp.zeros(d)) for m in "qkvo"}
        layer["up"] = (weight(next(keys), d, 4 * d), jnp.zeros(4 * d))
        layer["down"] = (weight(next(keys), 4 * d, d), jnp.zeros(d))
        params["layers"].append(layer | {"norm1": norm, "norm2": norm})

    def dense(x, p):
        return x @ p[0] + p[1][None, None]

    def f(params, x):
        e = params["embedding"]
        h = (x @ e if one_hot else e[x]) + params["position"][None]
        shape = (*h.shape[:2], heads, d // heads)
        mask = np.tril(np.ones((h.shape[1],) * 2, bool))[None, None]
        for layer in params["layers"]:
            y = layer_norm(h, layer["norm1"])
            q, k, v = (dense(y, layer[m]).reshape(shape) for m in "qkv")
            scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(d // heads)
            a = jax.nn.softmax(jnp.where(mask, scores, -1e9), -1)
            h = h + dense(jnp.einsum("bhqk,bkhd->bqhd", a, v).reshape(h.shape), layer["o"])
            y = dense(layer_norm(h, layer["norm2"]), layer["up"])
            h = h + dense(jax.nn.gelu(y), layer["down"])
        return layer_norm(h, params["norm"])[:, -1] @ params["out"]

    x = jax.random.randint(next(keys), (n, sequence), 0, vocabulary)
    return f, params, jax.nn.one_hot(x, vocabulary) if one_hot else x


def rnn(key, n, features=8, width=64, steps=16, outputs=10):
    keys = jax.random.split(key, 4)
    params = {
        "u": weight(keys[0], features, width),
        "w": weight(keys[1], width, width),
        "b": jnp.zeros(width),
        "v": weight(keys[2], width, outputs),
    }

    def f(params, x):
        def step(h, x):
            return jnp.tanh(x @ params["u"] + h @ params["w"] + params["b"][None]), None

        h, _ = lax.scan(step, jnp.zeros((len(x), width)), x.transpose(1, 0, 2))
        return h @ params["v"]

    return f, params, jax.random.normal(keys[3], (n, steps, features), jnp.float32)


def drawn(seed=0, each=2):
    """``(name, make)`` of models of random sizes, ``each`` of a kind."""
    rng = np.random.default_rng(seed)
    pick = lambda *values: int(rng.choice(values))  # noqa: E731
    for i in range(each):
        key = jax.random.key(i)
        hidden = [pick(96, 200, 320, 768) for _ in range(pick(2, 3, 5))]
        sizes = (pick(20, 100, 500), *hidden, pick(1, 3, 10, 30))
        n = pick(24, 60, 150)
        yield f"MLP {'-'.join(map(str, sizes))}, n={n}", lambda s=sizes, n=n, k=key: mlp(k, s, n)
        c = {"channels": pick(16, 24, 48), "layers": pick(2, 3, 5), "size": pick(8, 12, 20)}
        n = pick(8, 16, 24)
        yield f"CNN {c}, n={n}", lambda c=c, n=n, k=key: cnn(k, n, **c)
        t = {"d": pick(48, 96), "sequence": pick(8, 20, 40), "layers": pick(1, 2, 3)}
        t |= {"outputs": pick(2, 10, 30), "vocabulary": pick(50, 300)}
        n = pick(4, 8, 12)
        yield f"transformer {t}, n={n}", lambda t=t, n=n, k=key: transformer(k, n, **t)
        r = {"features": pick(4, 16), "width": pick(32, 96), "steps": pick(8, 24)}
        n = pick(8, 32)
        yield f"RNN {r}, n={n}", lambda r=r, n=n, k=key: rnn(k, n, **r)
