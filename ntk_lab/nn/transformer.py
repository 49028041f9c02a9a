"""Transformers with normalization before each branch, built from the layers of this package."""

from typing import Any

from ntk_lab.errors import InputError
from ntk_lab.nn.attention import GlobalSelfAttention
from ntk_lab.nn.dense import Dense
from ntk_lab.nn.gelu import Gelu
from ntk_lab.nn.module import Module
from ntk_lab.nn.normalization import LayerNorm
from ntk_lab.nn.pool import GlobalAvgPool
from ntk_lab.nn.repeat import Repeat
from ntk_lab.nn.residual import Residual
from ntk_lab.nn.sequential import Sequential


def TransformerBlock(
    width: int,
    heads: int = 8,
    hidden: int | None = None,
    activation: Module | None = None,
    norm: Module | None = None,
    w_std: float = 1.0,
    b_std: float | None = None,
    **attention: Any,
) -> Sequential:
    """Pre-LN transformer block: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Parameters
    ----------
    width, heads
        Channels of the block, which are those of its input, and attention heads.
    hidden
        Channels inside the MLP; default ``4 width``.
    activation, norm
        Modules, default ``Gelu()`` and ``LayerNorm()``.
    w_std, b_std
        Scales of the MLP's two layers.
    **attention
        Options of :class:`ntk_lab.nn.GlobalSelfAttention`, such as ``scaling="sqrt"``,
        ``causal=True``, ``pos_emb="sum"``.

    Notes
    -----
    An ordinary ``Sequential`` of two ``Residual``: everything that works for those works here.
    The input must be Gaussian in the limit: put a layer with weights in front, as
    :func:`Transformer` does. arXiv:2002.04745; kernel: arXiv:2006.10540.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> ntk.nn.TransformerBlock(64, heads=4).output_shape((10, 64))
    (10, 64)
    """
    activation = Gelu() if activation is None else activation
    norm = LayerNorm() if norm is None else norm
    mlp = (
        Dense(4 * width if hidden is None else hidden, w_std, b_std),
        activation,
        Dense(width, w_std, b_std),
    )
    attend = GlobalSelfAttention(width, heads, **attention)
    return Sequential(Residual(Sequential(norm, attend)), Residual(Sequential(norm, *mlp)))


def Transformer(
    depth: int,
    width: int,
    outputs: int = 1,
    *,
    embedding: Module | None = None,
    pooling: Module | None = None,
    norm: Module | None = None,
    loop: bool = False,
    **block: Any,
) -> Sequential:
    """Pre-LN transformer from a sequence to ``outputs`` numbers.

    ``Dense(width)`` of each position, ``depth`` blocks, a norm, the mean over positions, and a
    readout.

    Parameters
    ----------
    depth, width, outputs
        Number of blocks, channels throughout, and outputs.
    embedding
        First layer, default ``Dense(width)``; it must end in ``width`` channels.
    pooling
        From positions to a vector, default ``GlobalAvgPool()``; ``Flatten()`` is another.
    norm
        Of every block and at the end, default ``LayerNorm()``.
    loop
        The blocks as one :class:`ntk_lab.nn.Repeat`: deep stacks compile as fast as one block.
    **block
        Other options of :func:`TransformerBlock`. Without ``loop``, blocks with sampled attention
        (``scaling="sqrt"``) get seeds of their own, counted from ``seed``.

    Notes
    -----
    Takes inputs ``(n, sequence, channels)``. Without ``pos_emb`` the function does not depend on
    the order of positions (unless ``causal``). Cost of the kernel for ``s`` positions: about
    ``depth`` times ``4 s^3`` multiply-adds and tens of elementwise passes over ``s^2``, a pair of
    examples.

    Examples
    --------
    >>> import jax, ntk_lab as ntk
    >>> net = ntk.nn.Transformer(2, 64, heads=4, pos_emb="sum")
    >>> net.kernel(jax.random.normal(jax.random.key(0), (3, 6, 5))).ntk.shape
    (3, 3)
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise InputError(f"Transformer got depth={depth!r}; it must be an integer of at least 1.")
    norm = LayerNorm() if norm is None else norm
    seed = block.pop("seed", 0)
    count = 1 if loop else depth
    blocks = [TransformerBlock(width, norm=norm, seed=seed + i, **block) for i in range(count)]
    stack = [Repeat(blocks[0], depth)] if loop else blocks
    return Sequential(
        Dense(width) if embedding is None else embedding,
        *stack,
        norm,
        GlobalAvgPool() if pooling is None else pooling,
        Dense(outputs),
    )
