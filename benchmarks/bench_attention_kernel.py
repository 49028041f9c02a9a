"""Claim: kernels of attention networks are faster than neural-tangents'.

Both evaluate NNGP and NTK of the same float32 sequences in the same process: two layers of
self-attention with softmax and linear scaling (arXiv:2006.10540), each followed by Relu.
"""

import jax
import jax.numpy as jnp

import harness
import ntk_lab as ntk
from ntk_lab.interop import neural_tangents

SEQUENCE, CHANNELS = 32, 16
NN = ntk.nn


def ours() -> ntk.nn.Sequential:
    """Attention stack in this library."""
    attend = NN.GlobalSelfAttention(64, 4, 16, 16, scaling="linear", pos_emb="sum")
    block = [NN.Dense(64, 2**0.5, 0.1), NN.Relu(), attend]
    return NN.Sequential(*block, *block, NN.Relu(), NN.GlobalAvgPool(), NN.Dense(1))


def rival(nt):
    """The same network's jitted kernel function in neural-tangents."""
    stax = nt.stax
    attend = stax.GlobalSelfAttention(
        64, 16, 16, 4, linear_scaling=True, b_std=None, pos_emb_type="SUM"
    )
    block = [stax.Dense(64, 2**0.5, 0.1), stax.Relu(), attend]
    kernel_fn = stax.serial(*block, *block, stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))[2]
    return jax.jit(lambda x: tuple(kernel_fn(x, None, ("nngp", "ntk"))))


def product_rate() -> float:
    """Multiply-adds a second of a large matrix product, all cores."""
    x = jnp.ones((1024, 1024), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    return x.size * len(x) / (1e-3 * harness.median_ms(lambda: product(x)))


def floor_ms(elementwise: float, products: float, n: int) -> float:
    """Four products of sequence^3 and about 60 elementwise operations a pair, two layers."""
    layers = 2 * n * (n + 1) // 2
    return 1e3 * layers * (4 * SEQUENCE**3 / products + 60 * SEQUENCE**2 / elementwise)


def main() -> None:
    nt = neural_tangents.load()
    rows, rates = [], (harness.elementwise_rate(), product_rate())
    for n in (16, 64):
        x = jax.random.normal(jax.random.key(0), (n, SEQUENCE, CHANNELS), jnp.float32)
        net, kernel_fn = ours(), rival(nt)
        row = harness.race(
            f"2 layers of attention, sequence {SEQUENCE}, n={n}",
            ours=lambda net=net, x=x: net.kernel(x),
            rival=lambda kernel_fn=kernel_fn, x=x: kernel_fn(x),
            runs=7,
            floor_ms=floor_ms(*rates, n),
        )
        for a, b in zip(net.kernel(x), kernel_fn(x), strict=True):
            assert jnp.abs(a - b).max() < 1e-3 * jnp.abs(b).max(), "the two networks differ"
        row.extra["times_floor"] = row.ours_ms / row.extra["floor_ms"]
        rows.append(row)
    harness.save(
        "attention_kernel",
        rows,
        claim="Kernels of attention networks, float32, CPU",
        rival="neural-tangents",
    )


if __name__ == "__main__":
    main()
