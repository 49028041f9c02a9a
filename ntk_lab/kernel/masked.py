"""Batches of inputs some of whose positions are absent."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.errors import InputError


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Masked:
    """A batch with absent positions, accepted by ``net.apply`` and ``net.kernel`` for an array.

    For sequences of different lengths, padded to the longest, and for missing pixels.

    Attributes
    ----------
    x
        Inputs ``(n, *S, channels)``, or tokens ``(n, *S)``. Values at absent positions have no
        influence at all: they may be NaN, or tokens out of range.
    mask
        ``(n, *S)``, boolean: True where a position is present.

    Notes
    -----
    In both halves of a pair, every layer is given zeros at absent positions, and its outputs there
    are made zero again: ``y(p) = m'(p) layer(m x)(p)`` and ``q' = m1' m2' q``, ``t' = m1' m2' t``.
    No bias leaks in; convolutions see what they see outside of an image. Positions are present
    after a layer as follows:

    - layers that act on each position by itself: where they were before;
    - ``Conv``, ``ConvLocal``: where the middle of the window is (with ``"SAME"`` and stride 1,
      where they were); ``ConvTranspose``: where any input that is read is;
    - ``AvgPool``, ``SumPool``: where any position of the window is; ``AvgPool`` is the mean over
      the present ones, ``GlobalAvgPool`` that over all present positions of the example;
    - ``Flatten`` keeps the zeros, so that a kernel after it is a mean over all positions;
    - ``GlobalSelfAttention`` attends to present positions alone; ``SimpleRNN`` keeps its state
      where a step is absent, so that its last state is that of the last present step. Its kernel
      then carries all pairs of times;
    - ``Index`` takes what it takes; an absent position that it reads as a vector is zero.

    Layers that do not say what becomes of absent positions refuse masks by an InputError. The two
    batches of a kernel have masks of their own; an array beside a ``Masked`` is present
    everywhere. Where a mask is traced, an example without any present position cannot be refused
    by ``GlobalAvgPool``; its mean is zero. Gradients are with respect to ``x``:
    ``jax.grad(lambda x: net.kernel(ntk.nn.Masked(x, mask)).ntk.sum())(x)``. Cost: elementwise.

    Raises
    ------
    InputError
        When used: a mask that is not boolean or of another shape, or an example without any
        present position where a mean over them is taken.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(
    ...     ntk.nn.Conv(64, (3,), b_std=0.1), ntk.nn.Relu(), ntk.nn.GlobalAvgPool(),
    ...     ntk.nn.Dense(1),
    ... )
    >>> short = jnp.ones((1, 4, 2))
    >>> long = jnp.pad(short, ((0, 0), (0, 3), (0, 0)), constant_values=jnp.nan)
    >>> padded = ntk.nn.Masked(long, ~jnp.isnan(long[..., 0]))
    >>> bool(jnp.allclose(net.kernel(padded).ntk, net.kernel(short).ntk))
    True
    """

    x: jax.Array
    mask: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the inputs."""
        return np.shape(self.x)

    @property
    def ndim(self) -> int:
        """Number of axes of the inputs."""
        return np.ndim(self.x)

    @property
    def dtype(self) -> Any:
        """Type of the inputs."""
        return self.x.dtype

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, examples: Any) -> "Masked":
        return Masked(self.x[examples], self.mask[examples])

    def zeroed(self) -> jax.Array:
        """Inputs with zeros at absent positions."""
        return keep(jnp.asarray(self.x), jnp.asarray(self.mask))


def keep(x: jax.Array, factors: jax.Array) -> jax.Array:
    """``x`` of shape ``(n, *S, ...)`` times factors ``(n, *S)``, booleans or numbers.

    What is multiplied by False is zero even if it is NaN.
    """
    factors = factors.reshape(factors.shape + (1,) * (x.ndim - factors.ndim))
    if factors.dtype == bool:
        return jnp.where(factors, x, jnp.zeros((), x.dtype))
    return x * factors.astype(x.dtype)


def check_masked(x: Any, tokens: bool) -> Masked:
    """A batch with a mask that fits; an array is present everywhere. InputError otherwise.

    ``tokens``: whether positions are all axes but the first, without one for channels.
    """
    whole = not isinstance(x, Masked)
    values = x if whole else x.x
    values = values if isinstance(values, jax.Array) else np.asarray(values)
    positions = values.shape if tokens else values.shape[:-1]
    if whole:
        return Masked(jnp.asarray(values), jnp.ones(positions, bool))
    mask = x.mask if isinstance(x.mask, jax.Array) else np.asarray(x.mask)
    if mask.dtype != bool:
        raise InputError(
            f"the mask of ntk.nn.Masked is {mask.dtype}; it must be boolean, True where a position "
            "is present, e.g. mask=lengths[:, None] > jnp.arange(time)[None]."
        )
    if mask.shape != positions or len(positions) < 2:
        raise InputError(
            f"inputs of shape {values.shape} with a mask of shape {mask.shape}: ntk.nn.Masked(x, "
            "mask) needs a mask (n, *S), one value for each example and position, for inputs "
            "(n, *S, channels) or tokens (n, *S), with at least one axis of positions."
        )
    return Masked(jnp.asarray(values), jnp.asarray(mask))
