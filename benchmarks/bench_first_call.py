"""Claim: the first kernel of a deep architecture comes sooner than from neural-tangents.

What counts here is the column of first calls: tracing, compiling and running, from a cold start in
this process. The last row compiles the portable way of a pooled network of 60 layers, without the
loops that are compiled beforehand.
"""

import jax
import jax.numpy as jnp

import harness
import ntk_lab as ntk
from ntk_lab.interop import neural_tangents

W_STD, B_STD = 2**0.5, 0.1
NN = ntk.nn


def conv(depth: int, end) -> ntk.nn.Sequential:
    """``depth`` convolutions with Relu, then ``end`` and a readout."""
    layer = NN.Conv(64, (3, 3), w_std=W_STD, b_std=B_STD)
    return NN.Sequential(*[m for _ in range(depth) for m in (layer, NN.Relu())], end, NN.Dense(1))


def rival_conv(nt, depth: int):
    """Convolutions and Flatten in neural-tangents."""
    stax = nt.stax
    layer = stax.Conv(64, (3, 3), padding="SAME", W_std=W_STD, b_std=B_STD)
    layers = [m for _ in range(depth) for m in (layer, stax.Relu())]
    return stax.serial(*layers, stax.Flatten(), stax.Dense(1))[2]


def residual(depth: int) -> ntk.nn.Sequential:
    """``depth`` residual blocks of one fully connected layer."""
    dense = NN.Dense(64, W_STD, B_STD)
    blocks = [NN.Residual(NN.Sequential(NN.Relu(), dense)) for _ in range(depth)]
    return NN.Sequential(dense, *blocks, dense)


def rival_residual(nt, depth: int):
    """The same in neural-tangents."""
    stax = nt.stax
    dense = stax.Dense(64, W_STD, B_STD)
    block = stax.serial(
        stax.FanOut(2),
        stax.parallel(stax.Identity(), stax.serial(stax.Relu(), dense)),
        stax.FanInSum(),
    )
    return stax.serial(dense, *[block] * depth, dense)[2]


def jitted(kernel_fn):
    """Kernels of a neural-tangents network as one compiled function."""
    return jax.jit(lambda x: tuple(kernel_fn(x, None, ("nngp", "ntk"))))


def main() -> None:
    nt = neural_tangents.load()
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3), jnp.float32)
    vectors = jax.random.normal(jax.random.key(1), (64, 20), jnp.float32)
    cases = [
        ("50 convolutions + Flatten, 32x32x3, n=4", conv(50, NN.Flatten()),
         jitted(rival_conv(nt, 50)), images),
        ("50 residual layers, n=64", residual(50), jitted(rival_residual(nt, 50)), vectors),
    ]  # fmt: skip
    rows = []
    for name, net, kernel_fn, x in cases:
        row = harness.race(
            name,
            ours=lambda net=net, x=x: net.kernel(x),
            rival=lambda kernel_fn=kernel_fn, x=x: kernel_fn(x),
            runs=3,
        )
        row.extra["first_call_ratio"] = row.rival_first_s / row.ours_first_s
        rows.append(row)
    net, x = conv(60, NN.GlobalAvgPool()), images[:1]
    portable = jax.jit(lambda x1, x2: tuple(net.kernel(x1, x2)))
    rows.append(
        harness.race(
            "60 convolutions + GlobalAvgPool, 32x32x3, one pair, portable",
            ours=lambda: portable(x, x),
            runs=1,
        )
    )
    harness.save(
        "first_call", rows, claim="First calls of deep networks, float32, CPU",
        rival="neural-tangents",
    )  # fmt: skip


if __name__ == "__main__":
    main()
