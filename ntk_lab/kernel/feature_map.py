"""Random features of NNGP and NTK: products of rows tend to the kernel, at linear cost."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel.check import check_inputs
from ntk_lab.kernel.evaluate import Propagates, evaluate
from ntk_lab.kernel.feature_steps import FeatureStep, Sizes, draw, follow, known, transform
from ntk_lab.kernel.matrix import rows_of
from ntk_lab.kernel.native_steps import Average, TwoSlopes
from ntk_lab.kernel.plan import available_memory
from ntk_lab.kernel.source import Computes

# Examples whose kernel is computed to measure the error, of vectors and of images.
_VECTORS, _IMAGES = 256, 24
# Share of the NTK's features that are activations of the last layer: the rest is the sketch.
_ACTIVATIONS = 0.5
# Arrays of a block that live at a time; entries of one of them at most: larger are no faster.
_COPIES, _ENTRIES = 6, 2**23


class RandomFeatures:
    """A random map to vectors whose products approximate a kernel; see `random_features`.

    ``phi(x)`` are the features ``(n, count)`` of ``x``; of all inputs by the same random draws, so
    that ``phi(x1) @ phi(x2).T`` is about the kernel of ``x1`` and ``x2``.

    Attributes
    ----------
    count
        Number of features.
    which
        "ntk" or "nngp".
    relative_error
        ``|Phi Phi^T - K| / |K|`` (Frobenius norms) on some of the examples, measured.
    bytes
        Of the random draws, which are kept.
    """

    count: int
    which: str
    relative_error: float
    bytes: int

    def __init__(
        self, steps: tuple[FeatureStep, ...], which: str, like: Any, count: int, key: jax.Array,
        memory: float,
    ):  # fmt: skip
        self.which, self._steps, self.relative_error = which, steps, math.nan
        self._shape, self._dtype, self._memory = tuple(like.shape[1:]), np.dtype(like.dtype), memory
        flat = not any(isinstance(s, Average) for s in steps)
        self._inner = (math.prod(self._shape),) if flat else self._shape
        one = jax.ShapeDtypeStruct((1, *self._inner), self._dtype)
        sizes = _sizes(steps, which, one, count)
        self.count, seen = follow(steps, which, one, sizes)
        self.bytes = sum(s.phi * sizes.activations * self._dtype.itemsize for s in seen)
        self._widest = max([self.count, *(s.entries(sizes) for s in seen)])
        self._step = self._rows()
        keys = jax.random.split(key, len(seen)) if seen else []
        self.draws = [draw(s, sizes, k, self._dtype) for s, k in zip(seen, keys, strict=True)]

    def __call__(self, x: Any) -> jax.Array:
        """Features of ``x`` of shape ``(n, *shape)``: ``(n, count)``, in its dtype."""
        return jnp.concatenate([jnp.asarray(block) for _, block in self.blocks(x)])

    def blocks(self, x: Any, first: int = 0) -> Iterator[tuple[slice, np.ndarray]]:
        """Features of consecutive rows of ``x`` from row ``first`` on, within the memory limit."""
        if tuple(x.shape[1:]) != self._shape:
            raise InputError(
                f"x has examples of shape {tuple(x.shape[1:])}; these are features of examples of "
                f"shape {self._shape}."
            )
        n = x.shape[0]
        if n == 0:
            raise InputError("x holds no examples; at least one is needed.")
        step = min(n, self._step)
        for start in range(first, n, step):
            stop = min(start + step, n)
            # The last block goes further back, so that one program serves all.
            some, _ = check_inputs(np.asarray(x[max(stop - step, 0) : stop]))
            some = some.astype(self._dtype).reshape(len(some), *self._inner)
            found = transform(self._steps, self.which, some, self.draws)
            yield slice(start, stop), np.asarray(found)[start - stop :]

    def _rows(self) -> int:
        """Rows of a block."""
        each = _COPIES * self._widest * self._dtype.itemsize
        if self.bytes + each > self._memory:
            raise InputError(
                f"{self.count} features take {self.bytes:,} bytes of random draws and {each:,} for "
                f"one example, but memory={self._memory:,.0f}. Take fewer, or allow more."
            )
        room = min((self._memory - self.bytes) / each, _ENTRIES / self._widest)
        return max(1, int(room))

    def __repr__(self) -> str:
        error = f"relative error {self.relative_error:.2g}"
        return f"RandomFeatures({self.count} of the {self.which}, {error})"


def random_features(
    net: Propagates,
    x: Any,
    *,
    count: int,
    key: jax.Array,
    which: str = "ntk",
    memory: float | None = None,
) -> RandomFeatures:
    """Random features whose products approximate a kernel of a network of ReLUs.

    Parameters
    ----------
    net
        Layers of weights in any parameterization, and piecewise linear activations (`Relu`,
        `LeakyRelu`, `Abs`, `ABRelu`) in a `Sequential`: fully connected, or convolutions and
        pooling that end in pooling over all positions, and dense layers after that.
    x
        Inputs ``(n, *shape)``, on some of which the error is measured; any array.
    count
        Number of features, at most.
    key
        Of the random draws, of which there are ``count^2 / 4`` numbers an activation.
    which
        "ntk" or "nngp".
    memory
        Bytes for the draws and for blocks of features, half of what is free unless given.

    Returns
    -------
    RandomFeatures
        ``phi``, with ``phi(x1) @ phi(x2).T`` about the kernel, and ``phi.relative_error``.

    Raises
    ------
    InputError
        Other architectures; too few features, or more than fit into memory.

    Notes
    -----
    Each activation draws normal weights ``W`` for features ``relu(phi W)`` of its covariance
    (arc-cosine features, arXiv:1112.3712), and multiplies the features of the NTK by
    ``relu'(phi W)``, a tensor product that a TensorSRHT sketches to a given length
    (arXiv:2104.01351, arXiv:2106.07880, arXiv:1909.01410). Products have the kernel as their mean
    after one activation; after more there is a bias of order ``1 / count``, as activations then see
    estimated covariances. The error falls as ``count^(-1/2)``. Cost: ``O(n count^2)`` operations an
    activation, for convolutions at each position and with ``count^2`` times the window.

    Examples
    --------
    >>> import jax, numpy as np, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> x = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    >>> phi = ntk.kernel.random_features(net, x, count=4096, key=jax.random.key(0))
    >>> phi(x).shape, bool(phi.relative_error < 0.1)
    ((50, 4096), True)
    """
    if which not in ("ntk", "nngp"):
        raise InputError(f'which is {which!r}; it must be "ntk" or "nngp".')
    number = np.asarray(count)
    if number.ndim or number.dtype.kind not in "iuf" or not 1 <= number < np.inf or number % 1:
        raise InputError(
            f"count={count!r}; expected a whole number of features from 1, such as count=4096."
        )
    x = x if hasattr(x, "shape") and hasattr(x, "__getitem__") else np.asarray(x)
    if len(x.shape) < 2 or x.shape[0] == 0:
        raise InputError(f"x has shape {tuple(x.shape)}; expected (n, *shape) with n > 0.")
    steps = _steps(net, tuple(x.shape[1:]))
    looked, draws = jax.random.split(key)
    some = _some(x, looked, _VECTORS if len(x.shape) == 2 else _IMAGES)
    limit = available_memory(None if memory is None else int(memory), math.inf)
    found = RandomFeatures(steps, which, some, int(count), draws, limit)
    exact = np.asarray(getattr(evaluate(net, some, None, limit), which), np.float64)
    features = np.asarray(found(some), np.float64)
    error = np.linalg.norm(features @ features.T - exact) / np.linalg.norm(exact)
    found.relative_error = float(error)
    return found


def _some(x: Any, key: jax.Array, count: int) -> jax.Array:
    n = x.shape[0]
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    chosen = np.sort(rng.choice(n, min(n, count), replace=False))
    return check_inputs(rows_of(x, chosen))[0]


def _steps(net: Propagates, shape: tuple[int, ...]) -> tuple[FeatureStep, ...]:
    """The layers, of which all must be known here."""
    if isinstance(net, Computes):
        raise InputError("random features are of the kernels of an architecture.")
    net.output_shape(shape)
    steps = net.vector_steps(shape) if net.vocabulary_size is None else None
    if steps is None and (native := net.native_steps(shape)) is not None:
        before, channels, rest = native
        after = rest.vector_steps((channels,))
        steps = None if after is None else [*before, *after]
    found = known(steps or ())
    if not found:
        raise InputError(
            f"random features of {net!r} are not known. They are for a Sequential of Dense and "
            "Relu (LeakyRelu, Abs, ABRelu), or of Conv, Relu and pooling that ends in "
            "GlobalAvgPool, with Dense layers after it."
        )
    return found


def _sizes(steps: Sequence[FeatureStep], which: str, one: Any, count: int) -> Sizes:
    """Sizes with which features are at most ``count``: their number is linear in both."""
    base, first, second = (
        follow(steps, which, one, Sizes(*some))[0] for some in ((1, 1), (2, 1), (1, 2))
    )
    a, b = first - base, second - base
    left = count - (base - a - b)
    share = (_ACTIVATIONS if b else 1.0) if a else 1.0
    activations = int(share * left / a) if a else left
    tangents = (left - a * activations) // b if b else 1
    if not any(isinstance(s, TwoSlopes) for s in steps):
        activations = tangents = 1  # nothing is random, and the number is what it is
    if min(activations, tangents) < 1:
        raise InputError(f"count={count} features are too few for this network; take more.")
    return Sizes(activations, tangents)
