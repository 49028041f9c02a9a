"""The same three networks with the same weights, in every library: ``case(library, network)``.

``mlp`` of vectors, ``cnn`` with BatchNorm of images, ``tokens``, whose embedding is also its
readout. Each is ``(f, params, remarks)``, by hand under ``"plain"``.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.interop import from_equinox, from_haiku, from_linen, from_nnx

LIBRARIES = ("linen", "nnx", "equinox", "haiku")
NETWORKS = ("mlp", "cnn", "tokens")
EPS = 1e-5
_SHAPES = {
    "mlp": {"w": (4, 5), "b": (5,), "v": (5, 2), "c": (2,)},
    "cnn": {"w": (3, 3, 2, 3), "b": (3,), "scale": (3,), "offset": (3,), "v": (3, 2), "c": (2,)},
    "tokens": {"e": (6, 3)},
}


def _normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), float)


def weights(network):
    shapes = _SHAPES[network].items()
    return {name: _normal(i, *shape) for i, (name, shape) in enumerate(shapes)}


def statistics():
    return _normal(20, 3), _normal(21, 3) ** 2 + 0.5


def inputs(network):
    if network == "tokens":
        return jnp.array([[0, 1, 1], [5, 2, 3], [4, 4, 0], [2, 1, 5]])
    return _normal(30, 5, 4) if network == "mlp" else _normal(31, 4, 5, 4, 2)


def case(library, network):
    """An adapted model, or the plain function."""
    return globals()[f"_{library}_{network}"](weights(network))


def _plain_mlp(p):
    def f(p, x):
        return jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"] + p["c"][None]

    return f, p


def _plain_cnn(p):
    mean, var = statistics()

    def f(p, x):
        h = jax.lax.conv_general_dilated(
            x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        h = h + p["b"][None, None, None] - mean[None, None, None]
        h = h / jnp.sqrt(var + EPS)[None, None, None] * p["scale"][None, None, None]
        return jnp.tanh(h + p["offset"][None, None, None]).mean((1, 2)) @ p["v"] + p["c"][None]

    return f, p


def _plain_tokens(p):
    return lambda p, x: jnp.tanh(p["e"][x]).mean(1) @ p["e"].T, p


def _linen_mlp(p):
    import flax.linen as nn

    module = nn.Sequential([nn.Dense(5), jnp.tanh, nn.Dense(2)])
    params = {
        "layers_0": {"kernel": p["w"], "bias": p["b"]},
        "layers_2": {"kernel": p["v"], "bias": p["c"]},
    }
    return from_linen(module, {"params": params})


def _linen_cnn(p):
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            x = nn.BatchNorm(use_running_average=not train)(nn.Conv(3, (3, 3))(x))
            x = nn.Dropout(0.5, deterministic=not train)(jnp.tanh(x))
            return nn.Dense(2)(x.mean((1, 2)))

    mean, var = statistics()
    params = {
        "Conv_0": {"kernel": p["w"], "bias": p["b"]},
        "BatchNorm_0": {"scale": p["scale"], "bias": p["offset"]},
        "Dense_0": {"kernel": p["v"], "bias": p["c"]},
    }
    stats = {"BatchNorm_0": {"mean": mean, "var": var}}
    return from_linen(Net(), {"params": params, "batch_stats": stats})


def _linen_tokens(p):
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            embed = nn.Embed(6, 3)
            return embed.attend(jnp.tanh(embed(x)).mean(1))

    return from_linen(Net(), {"params": {"Embed_0": {"embedding": p["e"]}}})


def _nnx_dense(w, b):
    from flax import nnx

    layer = nnx.Linear(*w.shape, rngs=nnx.Rngs(0))
    layer.kernel, layer.bias = nnx.Param(w), nnx.Param(b)
    return layer


def _nnx_mlp(p):
    from flax import nnx

    hidden, readout = _nnx_dense(p["w"], p["b"]), _nnx_dense(p["v"], p["c"])
    return from_nnx(nnx.Sequential(hidden, jnp.tanh, readout))


def _nnx_cnn(p):
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(2, 3, (3, 3), rngs=nnx.Rngs(0))
            self.conv.kernel, self.conv.bias = nnx.Param(p["w"]), nnx.Param(p["b"])
            self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
            self.norm.scale, self.norm.bias = nnx.Param(p["scale"]), nnx.Param(p["offset"])
            self.norm.mean, self.norm.var = map(nnx.BatchStat, statistics())
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
            self.readout = _nnx_dense(p["v"], p["c"])

        def __call__(self, x):
            return self.readout(self.dropout(jnp.tanh(self.norm(self.conv(x)))).mean((1, 2)))

    return from_nnx(Net())


def _nnx_tokens(p):
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self):
            self.embed = nnx.Embed(6, 3, dtype=p["e"].dtype, rngs=nnx.Rngs(0))
            self.embed.embedding = nnx.Param(p["e"])
            self.again = self.embed

        def __call__(self, x):
            return self.again.attend(jnp.tanh(self.embed(x)).mean(1))

    return from_nnx(Net())


def _filled(layer, w, b):
    import equinox as eqx

    return eqx.tree_at(lambda m: (m.weight, m.bias), layer, (w, b))


def _equinox_mlp(p):
    import equinox as eqx

    key = jax.random.key(0)
    hidden = _filled(eqx.nn.Linear(4, 5, key=key), p["w"].T, p["b"])
    readout = _filled(eqx.nn.Linear(5, 2, key=key), p["v"].T, p["c"])
    return from_equinox(eqx.nn.Sequential([hidden, eqx.nn.Lambda(jnp.tanh), readout]))


def _equinox_cnn(p):
    import equinox as eqx

    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        dropout: eqx.nn.Dropout
        readout: eqx.nn.Linear

        def __init__(self, key):
            self.conv = eqx.nn.Conv2d(2, 3, 3, padding=1, key=key)
            self.conv = _filled(self.conv, p["w"].transpose(3, 2, 0, 1), p["b"][:, None, None])
            norm = eqx.nn.BatchNorm(3, "batch", mode="ema")
            self.norm = _filled(norm, p["scale"], p["offset"])
            self.dropout = eqx.nn.Dropout(0.5)
            self.readout = _filled(eqx.nn.Linear(3, 2, key=key), p["v"].T, p["c"])

        def __call__(self, x, state, *, key=None):
            x, state = self.norm(self.conv(x.transpose(2, 0, 1)), state)
            return self.readout(self.dropout(jnp.tanh(x), key=key).mean((1, 2))), state

    model, state = eqx.nn.make_with_state(Net)(jax.random.key(0))
    state = state.set(model.norm.ema_state_index, statistics())
    return from_equinox(model, state)


def _equinox_tokens(p):
    import equinox as eqx

    class Net(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self, key):
            embed = eqx.nn.Embedding(weight=p["e"])
            readout = eqx.nn.Linear(3, 6, use_bias=False, key=key)
            pair = (embed, readout)
            self.shared = eqx.nn.Shared(pair, lambda m: m[1].weight, lambda m: m[0].weight)

        def __call__(self, x):
            embed, readout = self.shared()
            return readout(jnp.tanh(jax.vmap(embed)(x)).mean(0))

    return from_equinox(Net(jax.random.key(0)))


def _haiku_mlp(p):
    import haiku as hk

    net = hk.without_apply_rng(
        hk.transform(lambda x: hk.Sequential([hk.Linear(5), jnp.tanh, hk.Linear(2)])(x))
    )
    params = {"linear": {"w": p["w"], "b": p["b"]}, "linear_1": {"w": p["v"], "b": p["c"]}}
    return from_haiku(net, params)


def _haiku_cnn(p):
    import haiku as hk

    def net(x, is_training):
        x = hk.BatchNorm(True, True, 0.9, eps=EPS)(hk.Conv2D(3, 3)(x), is_training)
        x = jnp.tanh(x)
        x = hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x
        return hk.Linear(2)(x.mean((1, 2)))

    norm = {name: p[name][None, None, None] for name in ("scale", "offset")}
    params = {
        "conv2_d": {"w": p["w"], "b": p["b"]},
        "batch_norm": norm,
        "linear": {"w": p["v"], "b": p["c"]},
    }
    means = dict(zip(("mean_ema", "var_ema"), statistics(), strict=True))
    state = {
        f"batch_norm/~/{name}": {"counter": jnp.int32(1), "hidden": value, "average": value}
        for name, value in ((k, v[None, None, None]) for k, v in means.items())
    }
    return from_haiku(hk.transform_with_state(net), params, state)


def _haiku_tokens(p):
    import haiku as hk

    def net(x):
        embed = hk.Embed(6, 3)
        return jnp.tanh(embed(x)).mean(1) @ embed.embeddings.T

    return from_haiku(hk.transform(net), {"embed": {"embeddings": p["e"]}})
