"""Claim: kernels of fully connected networks are faster and more accurate than neural-tangents'.

Both evaluate NNGP and NTK of the same float32 data in the same process. Accuracy is the largest
relative error of the NTK's diagonal, whose exact value is known: without biases,
``(depth + 1) w_std^2 (w_std^2 / 2)^depth |x|^2 / d`` for Relu.
"""

import jax
import jax.numpy as jnp
import numpy as np

import harness
import ntk_lab as ntk
from ntk_lab.interop import neural_tangents

N, D = 5000, 784
W_STD = 2**0.5


def ours(activation, depth: int, b_std: float | None = 0.1) -> ntk.nn.Sequential:
    """Network of ``depth`` hidden layers in this library."""
    hidden = [m for _ in range(depth) for m in (ntk.nn.Dense(512, W_STD, b_std), activation())]
    return ntk.nn.Sequential(*hidden, ntk.nn.Dense(1, W_STD, b_std))


def rival(nt, name: str, depth: int, b_std: float | None = 0.1):
    """The same network's jitted kernel function in neural-tangents."""
    dense = nt.stax.Dense(512, W_STD, b_std)
    layers = [m for _ in range(depth) for m in (dense, getattr(nt.stax, name)())]
    kernel_fn = nt.stax.serial(*layers, dense)[2]
    return jax.jit(lambda x: kernel_fn(x, None, ("nngp", "ntk")))


def diagonal_error(kernel, depth: int) -> float:
    """Largest relative error of a float32 Relu NTK's diagonal, no biases, 100 Gaussian inputs."""
    x = jax.random.normal(jax.random.key(1), (100, D))
    norms = (np.asarray(x, np.float64) ** 2).sum(1) / D
    exact = (depth + 1) * W_STD**2 * (W_STD**2 / 2) ** depth * norms
    return float(np.abs(np.diag(np.asarray(kernel(x).ntk, np.float64)) / exact - 1).max())


def floor_ms(x: jax.Array) -> float:
    """One Gram product and one write of two matrices of the result's size."""
    gram, write = jax.jit(lambda x: x @ x.T), jax.jit(lambda: (jnp.ones((N, N)), jnp.ones((N, N))))
    return harness.median_ms(lambda: gram(x)) + harness.median_ms(write)


def main() -> None:
    nt = neural_tangents.load()
    x = jax.random.normal(jax.random.key(0), (N, D), jnp.float32)
    rows = []
    for activation, name, depth, runs in (
        (ntk.nn.Relu, "Relu", 3, 15),
        (ntk.nn.Erf, "Erf", 3, 15),
        (ntk.nn.Relu, "Relu", 20, 2),
    ):
        errors = {}
        if name == "Relu":
            errors = {
                "ours_diagonal_error": diagonal_error(ours(activation, depth, None).kernel, depth),
                "rival_diagonal_error": diagonal_error(rival(nt, name, depth, None), depth),
            }
        net, kernel_fn = ours(activation, depth), rival(nt, name, depth)
        row = harness.race(
            f"{name}, depth {depth}, n={N}, d={D}",
            ours=lambda net=net: net.kernel(x),
            rival=lambda kernel_fn=kernel_fn: tuple(kernel_fn(x)),
            runs=runs,
            floor_ms=floor_ms(x),
            **errors,
        )
        row.extra["times_floor"] = row.ours_ms / row.extra["floor_ms"]
        rows.append(row)
    harness.save(
        "dense_kernel",
        rows,
        claim="Kernels of fully connected networks: faster and more accurate, float32, CPU",
        rival="neural-tangents",
    )


if __name__ == "__main__":
    main()
