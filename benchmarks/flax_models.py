"""A residual network of flax, with BatchNorm, as a user would write it."""

import jax
import jax.numpy as jnp
from flax import nnx

import ntk_lab as ntk


class Block(nnx.Module):
    """Two convolutions with BatchNorm and a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs):
        def conv(features, size, stride):
            kernel, strides = (size, size), (stride, stride)
            return nnx.Conv(features, outputs, kernel, strides, use_bias=False, rngs=rngs)

        self.a, self.b = conv(inputs, 3, stride), conv(outputs, 3, 1)
        self.norm_a, self.norm_b = (nnx.BatchNorm(outputs, rngs=rngs) for _ in range(2))
        self.skip = self.norm_skip = None
        if inputs != outputs or stride != 1:
            self.skip, self.norm_skip = conv(inputs, 1, stride), nnx.BatchNorm(outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Of images, channels last."""
        y = self.norm_b(self.b(nnx.relu(self.norm_a(self.a(x)))))
        return nnx.relu(y + (x if self.skip is None else self.norm_skip(self.skip(x))))


class ResNet18(nnx.Module):
    """For images of 32 x 32: a stem without pooling, eight blocks, a readout of the mean."""

    def __init__(self, outputs: int, rngs: nnx.Rngs, widths=(64, 128, 256, 512)):
        self.stem = nnx.Conv(3, widths[0], (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(widths[0], rngs=rngs)
        blocks, channels = [], widths[0]
        for width in widths:
            stride = 1 if width == channels else 2
            blocks += [Block(channels, width, stride, rngs), Block(width, width, 1, rngs)]
            channels = width
        self.blocks = nnx.List(blocks)
        self.out = nnx.Linear(channels, outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits ``(n, outputs)``."""
        x = nnx.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.out(x.mean((1, 2)))


def resnet18(n: int, outputs: int = 10, seed: int = 0):
    """``f, params, x``, with batch statistics of a few batches of noise."""
    model = ResNet18(outputs, nnx.Rngs(seed))
    keys = jax.random.split(jax.random.key(seed), 4)
    for key in keys[1:]:
        model(jax.random.normal(key, (8, 32, 32, 3), jnp.float32))
    f, params = ntk.interop.from_nnx(model)
    return f, params, jax.random.normal(keys[0], (n, 32, 32, 3), jnp.float32)
