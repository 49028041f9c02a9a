"""Small functions that use parameters in many ways: ``CASES[name]() -> f, params, x``."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


def normal(*shape):
    return jax.random.normal(jax.random.key(np.prod(shape, dtype=int) + 31 * len(shape)), shape)


def draw(**shapes):
    return {
        name: jax.random.normal(jax.random.key(i), shape)
        for i, (name, shape) in enumerate(shapes.items())
    }


X = (5, 4)  # five examples


@case
def dense():
    return lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], draw(w=(4, 6), v=(6, 3)), normal(*X)


@case
def dense_with_scaled_biases():
    def f(p, x):
        h = jnp.tanh(0.7 * (x @ p["w"]) + 0.1 * p["b"][None])
        return (h @ p["v"] - p["c"][None]) / 3.0

    return f, draw(w=(4, 6), b=(6,), v=(6, 3), c=(3,)), normal(*X)


@case
def two_biases_on_one_layer():
    def f(p, x):
        return jnp.sin(x @ p["w"] + p["b"][None] + p["c"][None]) @ p["v"]

    return f, draw(w=(4, 6), b=(6,), c=(1, 6), v=(6, 2)) | {"c": normal(6)}, normal(*X)


@case
def one_bias_on_two_layers():
    def f(p, x):
        h = jnp.sin(x @ p["w"] + p["b"][None])
        return jnp.sin(h @ p["v"] + p["b"][None])

    return f, draw(w=(4, 4), b=(4,), v=(4, 4)), normal(*X)


@case
def shared_weights():
    def f(p, x):
        for _ in range(3):
            x = jnp.tanh(x @ p["w"] + p["b"][None])
        return x

    return f, draw(w=(4, 4), b=(4,)), normal(*X)


@case
def tied_transposed_weights():
    return lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"].T, draw(w=(4, 6)), normal(*X)


@case
def sliced_weights():
    def f(p, x):
        w = p["w"]
        return jnp.tanh(x[:, :2] @ w[:2]) * jnp.sin(x @ w[1:5]) + x @ w[::2][:4]

    return f, draw(w=(8, 3)), normal(*X)


@case
def disjoint_slices_of_a_stack():
    def f(p, x):
        for i in range(3):
            x = jnp.tanh(x @ p["w"][i])
        return x

    return f, draw(w=(3, 4, 4)), normal(*X)


@case
def reshaped_weights():
    return lambda p, x: jnp.tanh(x @ p["w"].reshape(4, 6)), draw(w=(2, 3, 4)), normal(*X)


@case
def reversed_weights():
    return lambda p, x: jnp.tanh(x @ p["w"][::-1]), draw(w=(4, 3)), normal(*X)


@case
def scaled_and_negated_weights():
    return lambda p, x: jnp.tanh(x @ (-p["w"] / np.sqrt(4.0) * 0.3)), draw(w=(4, 3)), normal(*X)


@case
def repeated_weights():
    def f(p, x):
        return jnp.tanh(x @ jnp.broadcast_to(p["w"][None, :], (4, 3)))

    return f, draw(w=(3,)), normal(*X)


@case
def padded_and_concatenated_weights():
    def f(p, x):
        w = jnp.concatenate([p["w"], jnp.pad(p["v"], ((0, 0), (1, 0)))], 0)
        return jnp.tanh(x @ w)

    return f, draw(w=(2, 3), v=(2, 2)), normal(*X)


@case
def squared_weights():
    return lambda p, x: x @ p["w"] ** 2 + p["b"][None] ** 3, draw(w=(4, 3), b=(3,)), normal(*X)


@case
def weight_normalization():
    def f(p, x):
        w = p["g"][None] * p["v"] / jnp.linalg.norm(p["v"], axis=0, keepdims=True)
        return jnp.tanh(x @ w)

    return f, draw(g=(3,), v=(4, 3)), normal(*X)


@case
def product_of_two_weights():
    return lambda p, x: jnp.sin(x @ (p["w"] @ p["v"])), draw(w=(4, 2), v=(2, 3)), normal(*X)


@case
def product_of_a_weight_with_itself():
    return lambda p, x: jnp.sin(x @ (p["w"] @ p["w"])) * p["w"][:1], draw(w=(4, 4)), normal(*X)


@case
def weight_times_its_own_output():
    return lambda p, x: (x @ p["w"]) * p["w"][0][None] / p["s"], draw(w=(4, 3), s=()), normal(*X)


@case
def outputs_that_are_parameters():
    return lambda p, x: p["w"][None] + 0 * x, draw(w=(4,)), normal(*X)


@case
def parameters_that_do_not_matter():
    def f(p, x):
        return x @ p["w"] + lax.stop_gradient(p["s"][None]) + jnp.where(p["t"] > 0, 1.0, 2.0)

    return f, draw(w=(4, 3), s=(3,), t=(), u=(2, 2)), normal(*X)


@case
def inside_scan():
    def f(p, x):
        step = lambda h, _: (jnp.tanh(h @ p["w"] + p["b"][None]), h.sum())  # noqa: E731
        h, _ = lax.scan(step, x, None, length=3)
        return h + 0.1 * (h @ p["v"])

    return f, draw(w=(4, 4), b=(4,), v=(4, 4)), normal(*X)


@case
def scan_over_layers():
    def f(p, x):
        h, _ = lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])
        return h

    return f, draw(w=(3, 4, 4)), normal(*X)


@case
def recurrent_over_a_sequence():
    def f(p, x):
        def step(h, xt):
            return jnp.tanh(xt @ p["u"] + h @ p["w"] + p["b"][None]), None

        h, _ = lax.scan(step, jnp.zeros((len(x), 3)), x.transpose(1, 0, 2))
        return h @ p["v"]

    return f, draw(u=(2, 3), w=(3, 3), b=(3,), v=(3, 2)), normal(5, 4, 2)


@case
def scan_backward_with_outputs():
    def f(p, x):
        def step(carry, xt):
            h, count = carry
            h = jnp.tanh(xt @ p["u"] + h @ p["w"])
            return (h, count + 1), {"h": h, "scaled": h * count}

        start = jnp.zeros((len(x), 3)), 1.0
        (h, _), out = lax.scan(step, start, x.transpose(1, 0, 2), reverse=True)
        weights = jnp.arange(1.0, 1 + x.shape[1])[:, None, None]
        return h @ p["v"] + (weights * (out["h"] + out["scaled"])).sum(0) @ p["v"]

    return f, draw(u=(2, 3), w=(3, 3), v=(3, 2)), normal(5, 4, 2)


@case
def scan_within_scan():
    def f(p, x):
        def outer(h, w):
            h, _ = lax.scan(lambda h, _: (jnp.tanh(h @ w + h @ p["v"]), None), h, None, length=2)
            return h, None

        return lax.scan(outer, x, p["w"])[0]

    return f, draw(w=(3, 4, 4), v=(4, 4)), normal(*X)


@case
def long_scan():
    def f(p, x):
        step = lambda h, _: (h + 0.01 * jnp.sin(h @ p["w"]), None)  # noqa: E731
        return lax.scan(step, x, None, length=400)[0]

    return f, draw(w=(4, 4)), normal(*X)


@case
def inside_fori_loop():
    def f(p, x):
        return lax.fori_loop(0, 2, lambda i, h: jnp.sin(h @ p["w"]), x)

    return f, draw(w=(4, 4)), normal(*X)


@case
def inside_cond():
    def f(p, x):
        def one(row):
            return lax.cond(row.sum() > 0, lambda r: jnp.sin(r @ p["w"]), lambda r: r @ p["v"], row)

        return jax.vmap(one)(x)

    return f, draw(w=(4, 3), v=(4, 3)), normal(*X)


@case
def inside_a_branch_for_all():
    def f(p, x):
        return lax.cond(p["s"] > 0, lambda: jnp.sin(x @ p["w"]), lambda: x @ p["v"])

    return f, draw(s=(), w=(4, 3), v=(4, 3)), normal(*X)


@case
def inside_vmap():
    def f(p, x):
        return jax.vmap(lambda row: jnp.tanh(p["w"] @ row + p["b"]))(x)

    return f, draw(w=(3, 4), b=(3,)), normal(*X)


@case
def vmap_over_heads():
    def f(p, x):
        heads = jax.vmap(lambda w, b: jnp.tanh(x @ w + b[None]), out_axes=1)(p["w"], p["b"])
        return heads.sum(1)

    return f, draw(w=(2, 4, 3), b=(2, 3)), normal(*X)


@case
def inside_remat_and_jit():
    def f(p, x):
        layer = jax.checkpoint(jax.jit(lambda w, h: jnp.tanh(h @ w)))
        return layer(p["v"], layer(p["w"], x))

    return f, draw(w=(4, 5), v=(5, 3)), normal(*X)


@jax.custom_jvp
def tripled(x):
    return jnp.sin(x)


tripled.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), 3 * tangents[0]))


@jax.custom_vjp
def doubled(w, x):
    return x @ w


doubled.defvjp(lambda w, x: (x @ w, (w, x)), lambda r, d: (2 * r[1].T @ d, d @ r[0].T))


@case
def custom_jvp_of_activations():
    return lambda p, x: tripled(x @ p["w"]) @ p["v"], draw(w=(4, 3), v=(3, 2)), normal(*X)


@case
def custom_jvp_of_parameters():
    return lambda p, x: x @ tripled(p["w"]) + x @ p["w"], draw(w=(4, 3)), normal(*X)


@case
def custom_vjp_of_parameters():
    return lambda p, x: jnp.sin(doubled(p["w"], x)) @ p["v"], draw(w=(4, 3), v=(3, 2)), normal(*X)


@case
def embedding():
    def f(p, x):
        return jnp.tanh(p["e"][x] @ p["w"]).mean(1)

    return f, draw(e=(7, 3), w=(3, 2)), jnp.array([[0, 1, 1], [6, 2, 3], [4, 4, 4], [0, 5, 6]])


@case
def embedding_tied_to_the_readout():
    def f(p, x):
        h = jnp.take(p["e"], x, axis=0) + p["pos"][:3][None]
        return jnp.tanh(h[:, -1] @ p["w"]) @ p["e"].T

    params = draw(e=(7, 3), w=(3, 3), pos=(5, 3))
    return f, params, jnp.array([[0, 1, 1], [6, 2, -3], [4, 4, 4], [0, 5, 6]])


@case
def two_lookups_with_clipped_indices():
    def f(p, x):
        table = p["e"].reshape(6, 2, 2)
        clipped = table.at[x + 2].get(mode="clip")
        return jnp.sin(clipped).sum((1, 3)) * table.at[x[:, 0]].get(mode="clip")[:, 0]

    return f, draw(e=(6, 4)), jnp.array([[0, 1, 1], [5, 2, 3], [4, 4, 4]])


@case
def lookup_one_token_at_a_time():
    def f(p, x):
        return jnp.sin(jax.vmap(jax.vmap(lambda i: p["e"][i]))(x)).sum(1) @ p["e"].T

    return f, draw(e=(6, 3)), jnp.array([[0, 1, -1], [5, 2, 9], [4, 4, 4]])


@case
def lookup_of_columns():
    return lambda p, x: jnp.sin(p["e"][:, x[:, 0]].T), draw(e=(3, 6)), jnp.array([[0], [5], [5]])


@case
def one_token_an_example():
    return lambda p, x: jnp.sin(p["e"][x]) @ p["w"], draw(e=(6, 3), w=(3, 2)), jnp.array([0, 5, 5])


@case
def batches_in_a_tree():
    def f(p, x):
        return jnp.tanh(x["a"] @ p["w"] + p["e"][x["b"][0]]) * x["b"][1][:, None]

    x = {"a": normal(4, 3), "b": (jnp.array([0, 2, 1, 2]), normal(4))}
    return f, draw(w=(3, 2), e=(3, 2)), x


@case
def not_smooth():
    def f(p, x):
        h = jax.nn.relu(x @ p["w"] + p["b"][None])
        h = jnp.maximum(h, p["m"][None]) - jnp.abs(h @ p["v"])
        return jnp.sort(h, axis=-1)[:, 1:] + jnp.sign(h)[:, :1]

    return f, draw(w=(4, 3), b=(3,), m=(3,), v=(3, 3)), normal(*X)


@case
def scalar_outputs():
    return lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], draw(w=(4, 3), v=(3,)), normal(*X)


@case
def outputs_with_many_axes():
    def f(p, x):
        return jnp.einsum("ni,ijkl->nljk", x, p["w"]) + p["b"][None, None]

    return f, draw(w=(4, 2, 2, 3), b=(2, 2)), normal(*X)


@case
def sequence_to_last_position():
    def f(p, x):
        h = jax.nn.gelu(x @ p["w"] + p["b"][None, None])
        h = h + jnp.cumsum(h, 1) @ p["v"] + p["pos"][None]
        h = jax.nn.relu(h @ p["u"]) * p["s"][None, None]
        return h[:, -1] @ p["out"]

    shapes = {"w": (3, 4), "b": (4,), "v": (4, 4), "pos": (5, 4), "u": (4, 4), "s": (4,)}
    return f, draw(**shapes, out=(4, 2)), normal(4, 5, 3)


@case
def attention_with_einsum():
    def f(p, x):
        q, k, v = (jnp.einsum("btd,dhe->bthe", x, p[m]) for m in "qkv")
        a = jax.nn.softmax(jnp.einsum("bthe,bshe->bhts", q, k) + p["bias"][None], -1)
        h = jnp.einsum("bhts,bshe->bthe", a, v)
        return jnp.einsum("bthe,hed->btd", h, p["o"])[:, 1:3].reshape(len(x), -1)

    shapes = {m: (3, 2, 2) for m in "qkv"}
    return f, draw(**shapes, o=(2, 2, 3), bias=(2, 4, 4)), normal(3, 4, 3)


@case
def layer_norm_and_residual():
    def f(p, x):
        m = x.mean(-1, keepdims=True)
        y = (x - m) / jnp.sqrt(((x - m) ** 2).mean(-1, keepdims=True) + 1e-3)
        y = y * p["s"][None, None] + p["b"][None, None]
        return (x + jax.nn.silu(y @ p["w"])).mean(1) * p["g"]

    return f, draw(s=(4,), b=(4,), w=(4, 4), g=()), normal(3, 5, 4)


def convolution(x, w, **settings):
    settings = {"window_strides": (1,) * (x.ndim - 2), "padding": "SAME"} | settings
    rank = x.ndim - 2
    letters = "HWD"[:rank]
    names = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    return lax.conv_general_dilated(x, w, dimension_numbers=names, **settings)


@case
def conv_strided_and_dilated():
    def f(p, x):
        h = jnp.tanh(convolution(x, p["w"], window_strides=(2, 1)) + p["b"][None, None, None])
        h = convolution(h, p["v"], rhs_dilation=(1, 2), padding=((1, 2), (0, 2)))
        return h.mean((1, 2))

    return f, draw(w=(3, 2, 2, 3), b=(3,), v=(2, 2, 3, 2)), normal(3, 5, 4, 2)


@case
def conv_transposed():
    def f(p, x):
        h = convolution(x, p["w"], lhs_dilation=(2, 2), padding=((1, 1), (2, 0)))
        return jnp.sin(h).sum((1, 2))

    return f, draw(w=(2, 2, 2, 3)), normal(3, 3, 2, 2)


@case
def conv_grouped_and_depthwise():
    def f(p, x):
        h = jnp.tanh(convolution(x, p["w"], feature_group_count=2) * p["s"][None, None, None])
        return convolution(h, p["v"], feature_group_count=6).mean((1, 2))

    return f, draw(w=(3, 3, 2, 6), s=(6,), v=(2, 2, 1, 12)), normal(3, 4, 4, 4)


@case
def conv_channels_first_in_one_dimension():
    def f(p, x):
        h = lax.conv_general_dilated(
            x, p["w"], (1,), [(1, 0)], dimension_numbers=("NCH", "OIH", "NCH")
        )
        return (jnp.tanh(h) + p["b"][None, :, None]).reshape(len(x), -1)

    return f, draw(w=(3, 2, 2), b=(3,)), normal(3, 2, 4)


@case
def conv_used_twice_with_pooling():
    def f(p, x):
        for _ in range(2):
            x = jax.nn.relu(convolution(x, p["w"]) + p["b"][None, None, None])
            x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return x.reshape(len(x), -1)

    return f, draw(w=(3, 3, 2, 2), b=(2,)), normal(3, 4, 4, 2)


@case
def weights_made_from_inputs():
    def f(p, x):
        w = jnp.tanh(x @ p["h"]).reshape(len(x), 4, 2)
        return jnp.einsum("ni,nio->no", x, w) + jnp.einsum("ni,ij,nj->n", x, p["q"], x)[:, None]

    return f, draw(h=(4, 8), q=(4, 4)), normal(*X)


@case
def integer_and_mixed_parameters():
    def f(p, x):
        return x[:, p["index"]] @ p["w"].astype(x.dtype) * p["count"].astype(x.dtype)

    params = {
        "index": jnp.array([2, 0]),
        "w": normal(2, 3).astype(jnp.float32),
        "count": jnp.int32(3),
    }
    return f, params, normal(*X)


@case
def bare_number_as_parameters():
    return lambda p, x: jnp.sin(p * x), jnp.asarray(0.7), normal(*X)


@case
def deep_and_narrow():
    def f(p, x):
        for w, b in p:
            x = x + jnp.tanh(x @ w + b[None])
        return x

    return f, [(normal(4, 4) * 0.3 * i, normal(4) * i) for i in range(1, 8)], normal(*X)


@case
def mixture_of_experts():
    def f(p, x):
        gate = jax.nn.softmax(x @ p["g"], -1)
        return jnp.einsum("ne,eio,ni->no", gate, p["w"], x)

    return f, draw(g=(4, 3), w=(3, 4, 2)), normal(*X)
