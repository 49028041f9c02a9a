"""Claim: kernels of convolutional networks are many times faster than neural-tangents'.

Both evaluate NNGP and NTK of the same float32 images in the same process. The networks with pooling
carry the covariance between all pairs of positions: what everybody waits for.
"""

import jax
import jax.numpy as jnp

import harness
import ntk_lab as ntk
from ntk_lab.interop import neural_tangents

W_STD, B_STD = 2**0.5, 0.1
NN = ntk.nn


def ours(depth: int, end) -> ntk.nn.Sequential:
    """``depth`` convolutions with Relu, then ``end`` and a readout."""
    layers = [
        m for _ in range(depth) for m in (NN.Conv(64, (3, 3), w_std=W_STD, b_std=B_STD), NN.Relu())
    ]
    return NN.Sequential(*layers, end, NN.Dense(1))


def rival(nt, depth: int, end):
    """The same network's jitted kernel function in neural-tangents."""
    stax = nt.stax
    conv = stax.Conv(64, (3, 3), padding="SAME", W_std=W_STD, b_std=B_STD)
    layers = [m for _ in range(depth) for m in (conv, stax.Relu())]
    return jitted(stax.serial(*layers, end, stax.Dense(1))[2])


def jitted(kernel_fn):
    """Kernels of a neural-tangents network as one compiled function."""
    return jax.jit(lambda x1, x2=None: tuple(kernel_fn(x1, x2, ("nngp", "ntk"))))


def ours_myrtle() -> ntk.nn.Sequential:
    """Myrtle-5 of arXiv:2003.02237 in this library."""
    conv, pool = NN.Conv(64, (3, 3), w_std=W_STD, b_std=B_STD), NN.AvgPool((2, 2), (2, 2))
    layers = [conv, NN.Relu(), conv, NN.Relu(), pool, conv, NN.Relu(), pool, conv, NN.Relu()]
    return NN.Sequential(*layers, pool, NN.GlobalAvgPool(), NN.Dense(10))


def rival_myrtle(nt):
    """Myrtle-5 in neural-tangents."""
    stax = nt.stax
    conv = stax.Conv(64, (3, 3), padding="SAME", W_std=W_STD, b_std=B_STD)
    pool = stax.AvgPool((2, 2), (2, 2))
    relu = stax.Relu()
    layers = [conv, relu, conv, relu, pool, conv, relu, pool, conv, relu, pool]
    return jitted(stax.serial(*layers, stax.GlobalAvgPool(), stax.Dense(10))[2])


def floor_ms(rate: float, pairs: int, layers: list[int]) -> float:
    """Multiply-adds of the filters and activations, at the measured elementwise rate.

    Each layer sums 3 + 3 taps of two numbers for each pair of positions, and the activation is two
    polynomials of degree 8 and about 20 further operations. ``layers`` are numbers of positions.
    """
    return 1e3 * pairs * sum(n * n for n in layers) * (2 * 6 + 2 * 8 + 20) / rate


def images(n: int, size: int, seed: int = 0) -> jax.Array:
    """Random images with three channels."""
    return jax.random.normal(jax.random.key(seed), (n, size, size, 3), jnp.float32)


def main() -> None:
    nt = neural_tangents.load()
    stax, average, flat = nt.stax, NN.GlobalAvgPool(), NN.Flatten()
    rate = harness.elementwise_rate()
    pooled, myrtle = [256] * 5, [256, 256, 64, 16]
    cases = [
        # At equal positions only: as many numbers as one layer of 32 positions would pair.
        ("5 layers + Flatten, 32x32x3, n=32", ours(5, flat),
         rival(nt, 5, stax.Flatten()), 32, 32, 7, [32] * 5),
        ("5 layers + GlobalAvgPool, 16x16x3, n=16", ours(5, average),
         rival(nt, 5, stax.GlobalAvgPool()), 16, 16, 3, pooled),
        ("Myrtle-5, 16x16x3, n=16", ours_myrtle(), rival_myrtle(nt), 16, 16, 3, myrtle),
    ]  # fmt: skip
    rows = []
    for name, net, kernel_fn, n, size, runs, layers in cases:
        x = images(n, size)
        race = harness.race(
            name,
            ours=lambda net=net, x=x: net.kernel(x),
            rival=lambda kernel_fn=kernel_fn, x=x: kernel_fn(x),
            runs=runs,
            floor_ms=floor_ms(rate, n * (n + 1) // 2, layers),
        )
        rows.append(race)
    x1, x2 = images(2, 32), images(2, 32, seed=1)
    net, kernel_fn = ours(21, average), rival(nt, 21, stax.GlobalAvgPool())
    row = harness.race(
        "21 layers + GlobalAvgPool, 32x32x3, 2 x 2 images",
        ours=lambda: net.kernel(x1, x2),
        rival=lambda: kernel_fn(x1, x2),
        runs=2,
        floor_ms=floor_ms(rate, 4, [1024] * 21),
    )
    row.extra["ours_ms_per_entry"] = row.ours_ms / 4
    rows.append(row)
    for row in rows:
        row.extra["times_floor"] = row.ours_ms / row.extra["floor_ms"]
    harness.save(
        "conv_kernel",
        rows,
        claim="Kernels of convolutional networks, float32, CPU",
        rival="neural-tangents",
    )


if __name__ == "__main__":
    main()
