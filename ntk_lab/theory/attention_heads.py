"""Finitely many heads: what has to grow for a kernel, and how random it is before."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError
from ntk_lab.nn.attention import GlobalSelfAttention
from ntk_lab.nn.mechanism import attention_weights

_READOUTS = {"mean": lambda y: jnp.mean(y), "last": lambda y: y[-1]}


class AttentionTheory(NamedTuple):
    """Powers of the number ``H`` of heads and of their width ``d``, each with the other fixed.

    Attributes
    ----------
    fluctuation
        ``(heads, head width)``: powers in the standard deviation of a network's NTK over initial
        parameters; 0 where it does not vanish.
    bias
        The same of the deviation of the mean over networks from the kernel of infinite width.
    grows
        What has to grow for the kernel to become that of infinite width.
    source
        Where it comes from.
    """

    fluctuation: tuple[float, float]
    bias: tuple[float, float]
    grows: str
    source: str


def attention_theory(scaling: str) -> AttentionTheory:
    """How finite transformers approach their kernel, for either scaling of the logits.

    With logits ``Q K^T / sqrt(d)`` each head attends at random however wide it is: one wide head
    is no Gaussian process, and only averaging over many is (arXiv:2006.10540, theorems 1 and 3).
    With ``Q K^T / d`` and tied weights logits become numbers as heads become wide, whatever their
    number. Heads being independent and alike, a layer has exactly::

        Var = (A + B / d + ...) / H,       E - limit = b / d + ...

    with ``A = 0`` for ``"linear"``, and :func:`head_moments` for ``"sqrt"``. The second line is
    how mean kernels of heads of finite width differ (logits that are products of Gaussians, by
    ``1/d``), which no number of heads removes. Deeper stacks, whose other layers have widths in
    proportion to ``H d``, have the same form to leading order with other constants, and in the mean
    a further ``1/H`` (``"sqrt"``) or ``1/(H d)``.

    Raises
    ------
    InputError
        Another name than ``"linear"`` and ``"sqrt"``.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> ntk.theory.attention_theory("sqrt").fluctuation
    (-0.5, 0.0)
    >>> ntk.theory.attention_theory("linear").grows
    'head width'
    """
    if scaling not in ("linear", "sqrt"):
        raise InputError(f"scaling={scaling!r}; choose 'linear' or 'sqrt'.")
    linear = scaling == "linear"
    return AttentionTheory(
        fluctuation=(-0.5, -0.5 if linear else 0.0),
        bias=(0.0, -1.0),
        grows="head width" if linear else "heads and head width",
        source="arXiv:2006.10540",
    )


class HeadMoments(NamedTuple):
    """NTK of single heads of infinite width.

    Attributes
    ----------
    kernels
        Independent draws ``(draws, n, n)``, float64; a single one where it is not random. Layers
        of ``H`` wide heads have the mean of ``H`` of these.
    """

    kernels: np.ndarray

    @property
    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean, which is the kernel of infinitely many heads, and standard error, ``(n, n)``."""
        mean, draws = self.kernels.mean(0), len(self.kernels)
        if draws == 1:
            return mean, np.zeros_like(mean)
        return mean, self.kernels.std(0, ddof=1) / draws**0.5

    def relative_variance(self, heads: int = 1) -> tuple[float, float]:
        """``sum_ij Var(K_ij) / sum_ij E[K_ij]^2`` of ``heads`` wide heads, and standard error."""
        if len(self.kernels) == 1:
            return 0.0, 0.0
        value, error = relative_variance(self.kernels, self.mean[0])
        return value / heads, error / heads


def head_moments(
    layer: GlobalSelfAttention,
    x: jax.Array,
    key: jax.Array,
    *,
    draws: int = 2000,
    readout: str = "mean",
) -> HeadMoments:
    """NTK of one infinitely wide head of a self-attention layer, at random: mean and fluctuations.

    For inputs ``x`` with ``c`` channels, a head of scaling ``1/sqrt(d)`` is, as ``d`` grows, in
    law the small network::

        f(x) = OV / sqrt(c) * mechanism(QK x A x^T / c) x b

    with standard normal ``A (c, c)`` and ``b (c,)``, which stand for the products of the weights
    of queries and keys, and of values and readout. Each being a product of two maps, its NTK
    counts twice. The layer's NTK is the mean over independent heads, so that its variance is
    that of one over ``H``, exactly. With scaling ``"linear"`` ``A`` is the identity and does not
    learn: nothing is random.

    Parameters
    ----------
    layer
        Self-attention in NTK parameterization without bias or positional embeddings, which heads
        share. Its own numbers of heads and channels do not matter.
    x
        Inputs ``(n, s, c)`` of the layer, not random.
    key, draws
        Randomness, and number of heads that are drawn, at least two.
    readout
        From one output channel at ``s`` positions to a number: their ``"mean"``, or the ``"last"``.

    Returns
    -------
    HeadMoments
        For one output; the kernel of several, averaged, fluctuates less.

    Raises
    ------
    InputError
        Other inputs or layers.

    Notes
    -----
    The limit is arXiv:2006.10540's; the reduction to a small network is elementary: given keys,
    ``Q K^T / sqrt(d)`` is Gaussian with covariance ``q_ab q_cd`` by the central limit theorem, as
    ``x A x^T / c`` is for every ``d``, and gradients in two factors average to that in their
    product. Cost: a gradient of the small network a draw and example.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> layer = ntk.nn.GlobalSelfAttention(1, scaling="sqrt", mechanism="identity")
    >>> found = ntk.theory.head_moments(layer, jnp.ones((1, 1, 1)), jax.random.key(0))
    >>> value, error = found.relative_variance()  # exactly 1 there
    >>> abs(value - 1) < 5 * error
    True
    """
    x = jnp.asarray(x)
    if x.ndim != 3 or not len(x) or not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"x is {x.dtype} of shape {x.shape}; give floating inputs (n, s, c).")
    if readout not in _READOUTS:
        raise InputError(f"readout={readout!r}; choose {' or '.join(map(repr, _READOUTS))}.")
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 2:
        raise InputError(f"draws={draws!r}; moments take two or more.")
    shared = layer.b_std is not None or layer.pos_emb != "none"
    if shared or layer.parameterization != "ntk":
        raise InputError(
            f"heads are independent and known without bias (b_std={layer.b_std}) and positional "
            f"embeddings ({layer.pos_emb!r}), in NTK parameterization ({layer.parameterization!r})."
        )
    draws = 1 if layer.scaling == "linear" else draws
    kernels = _heads(layer, readout, jax.random.split(key, draws), x)
    return HeadMoments(np.asarray(kernels, float))


@compiled(static_argnums=(0, 1))
def _heads(layer: GlobalSelfAttention, readout: str, keys: jax.Array, x: jax.Array) -> jax.Array:
    channels, fixed = x.shape[2], layer.scaling == "linear"
    logit = layer.w_query_std * layer.w_key_std / channels
    scale = layer.w_value_std * layer.w_out_std / channels**0.5

    def f(params: tuple[jax.Array, jax.Array], example: jax.Array) -> jax.Array:
        a, b = params
        logits = logit * (example @ a @ example.T)
        z = attention_weights(layer.mechanism, layer.causal, logits)
        return scale * _READOUTS[readout](z @ (example @ b))

    def of(key: jax.Array) -> jax.Array:
        first, second = jax.random.split(key)
        identity = jnp.eye(channels, dtype=x.dtype)
        a = identity if fixed else jax.random.normal(first, identity.shape, x.dtype)
        b = jax.random.normal(second, (channels,), x.dtype)
        of_a, of_b = jax.vmap(jax.grad(f), (None, 0))((a, b), x)
        moving = (of_b,) if fixed else (of_a, of_b)
        flat = jnp.concatenate([g.reshape(len(x), -1) for g in moving], axis=1)
        return 2 * jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)

    return jax.lax.map(of, keys, batch_size=256)


def relative_variance(kernels: np.ndarray, scale: np.ndarray) -> tuple[float, float]:
    """Sum over entries of the variance of kernels ``(draws, n, n)``, in units of ``|scale|^2``.

    With its standard error, from the spread of squared distances to the mean.
    """
    draws = len(kernels)
    squares = ((kernels - kernels.mean(0)) ** 2).sum((1, 2)) / (scale**2).sum()
    correction = draws / (draws - 1)
    return float(squares.mean() * correction), float(squares.std(ddof=1) * correction / draws**0.5)
