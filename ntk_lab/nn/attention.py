"""Self-attention over all positions."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel import Need, State, moments
from ntk_lab.kernel.attention import (
    Moments,
    fixed_weights,
    linear_attention,
    matrices,
    present_positions,
    readout,
)
from ntk_lab.kernel.attention_sampling import Mechanism, random_weights
from ntk_lab.kernel.layout import Carry
from ntk_lab.kernel.native_steps import Attend, Step
from ntk_lab.nn.attention_options import check_options
from ntk_lab.nn.attention_scales import AttentionScales, attention_scales
from ntk_lab.nn.graph import nodes
from ntk_lab.nn.masked import mask_of
from ntk_lab.nn.mechanism import attention_slopes, attention_weights
from ntk_lab.nn.module import Module, Params, hyper, module
from ntk_lab.nn.parameterization import Parameterization
from ntk_lab.nn.position_embedding import embed, embedding_covariance, mix_positions


@module
class GlobalSelfAttention(Module):
    """Multi-head self-attention over all positions, ``concat_h(Z_h V_h) W_out + b``.

    Each head attends with ``Z = mechanism(w_query_std w_key_std Q K^T / d)``, softmax over the
    second position or an elementwise function; ``Q, K, V`` are linear maps of the input.

    Parameters
    ----------
    width
        Number of output channels.
    heads, key_width, value_width
        Number of heads, and channels of each head's queries and keys, and of its values; ``None``
        means ``width // heads``. The kernel is the limit of many heads.
    scaling
        ``"linear"``: ``d = key_width``, and queries share the weights of keys; attention becomes
        a number in the limit. ``"sqrt"``: ``d = sqrt(key_width)``, independent weights, as
        transformers have; attention stays random.
    mechanism
        ``"softmax"``, ``"identity"``, ``"relu"`` or ``"abs"``.
    w_query_std, w_key_std, w_value_std, w_out_std, b_std
        Scales of weights and of the bias (``None``: no bias). Kernels are differentiable in all;
        in NTK parameterization only products of the first two and of the next two matter.
    pos_emb
        Trainable random positional embeddings: ``"none"``, added (``"sum"``) or appended as
        channels (``"concat"``) to the input of queries and keys, with ``val_pos_emb`` also to
        that of values.
    w_pos_emb_std, pos_emb_decay, pos_emb_p_norm, pos_emb_width
        Their scale; their covariance ``R`` between positions: ``None`` for independent ones,
        ``("exp", c)`` for ``exp(-c d)``, ``("power", c)`` for ``1 / (1 + c d)`` with
        ``d = sum_axes |i - j|^p``; and their channels (``None``: as many as the input).
    causal
        Positions attend only to themselves and to earlier ones (row-major order).
    samples, seed
        For ``scaling="sqrt"``, unless the mechanism is ``"identity"``: how many draws of the
        logits the kernel averages, and which. See :func:`ntk_lab.nn.kernel_over_seeds` for
        standard errors.
    parameterization
        As for :class:`ntk_lab.nn.Dense`, of each linear map as a layer of its own, whose outputs
        are those of all heads together; ``mean_field`` is of the readout ``W_out, b`` alone, the
        rest being ``ntk``. Tied weights of keys share the scales of both.

    Notes
    -----
    Parameters are ``{"key": (heads, channels, key_width), "value", "out", "query", "b",
    "pos_emb"}``, the last three if there are such. With ``q, t`` covariance and NTK of the input,
    ``qi, ti`` with positional embeddings added (``a q + b w_pos_emb_std^2 R``, ``a = b = 1`` for
    ``sum``, shares of channels for ``concat``), ``qv, tv`` the same or without (``val_pos_emb``),
    ``QK`` and ``OV`` products of scales, arXiv:2006.10540 gives, in NTK parameterization::

        linear:          G = mechanism(QK qi(x, x)),       q' = OV^2 G1 qv G2^T + b_std^2,
                         t' = OV^2 G1 tv G2^T + 2 (q' - b_std^2) + b_std^2
        sqrt, identity:  q' = (QK OV)^2 <qi, qv> qi + b_std^2,
                         t' = (QK OV)^2 ((<qi, tv> + <qv, ti>) qi + <qi, qv> (ti + 4 qi)) + b_std^2
        sqrt, others:    means over Gaussian logits, by Monte Carlo with relative standard error
                         of order 1 / sqrt(samples)

    In others each map's share of the NTK is multiplied as that of ``Dense`` is: ``q' - b_std^2``
    for the readout and again for values, one ``qi`` of ``4 qi`` for each map, ``b_std^2``, ``R``.

    Cost for ``s`` positions and a pair of examples: ``4 s^3`` multiply-adds, ``s^2``, and about
    ``20 s^3`` a sample. For ``sqrt`` with few heads a finite network fluctuates as 1/sqrt(heads).

    Raises
    ------
    InputError
        Counts that are not positive integers, unknown names, inputs without a spatial axis, a
        ``sum`` of embeddings and inputs with different channels, ``Standard`` with its factors.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.GlobalSelfAttention(8, heads=2), ntk.nn.GlobalAvgPool())
    >>> net.kernel(jnp.ones((2, 5, 3))).ntk.shape
    (2, 2)
    """

    width: int
    heads: int = 8
    key_width: int | None = None
    value_width: int | None = None
    scaling: str = "linear"
    mechanism: str = "softmax"
    w_query_std: float = hyper(default=1.0)
    w_key_std: float = hyper(default=1.0)
    w_value_std: float = hyper(default=1.0)
    w_out_std: float = hyper(default=1.0)
    b_std: float | None = hyper(default=None)
    pos_emb: str = "none"
    w_pos_emb_std: float = hyper(default=1.0)
    pos_emb_decay: tuple[str, float] | None = None
    pos_emb_p_norm: float = 2
    pos_emb_width: int | None = None
    val_pos_emb: bool = False
    causal: bool = False
    samples: int = 256
    seed: float = hyper(default=0.0)
    parameterization: Parameterization = "ntk"

    def __post_init__(self):
        check_options(self)
        if isinstance(self.seed, int):
            # A leaf that networks are differentiated in must not be an integer.
            object.__setattr__(self, "seed", float(self.seed))

    def has_width(self) -> bool:
        return True

    def _map_layers(self, change: Any, readout: bool = True) -> Any:
        return change(self, readout)

    @property
    def ends_independent(self) -> bool:
        return True

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) < 2:
            raise InputError(
                "GlobalSelfAttention needs examples with spatial axes and channels, such as "
                f"(sequence, channels); one example has shape {shape}."
            )
        if self.pos_emb == "sum" and self.pos_emb_width not in (None, shape[-1]):
            raise InputError(
                f"pos_emb='sum' adds {self.pos_emb_width} channels to {shape[-1]}; leave "
                "pos_emb_width=None or use pos_emb='concat'."
            )
        return (*shape[:-1], self.width)

    def _widths(self, channels: int) -> tuple[int, int, int, int, int]:
        """Channels of keys, values, embeddings, and of the inputs of the first two."""
        share = max(self.width // self.heads, 1)
        keys, values = (share if w is None else w for w in (self.key_width, self.value_width))
        extra = 0
        if self.pos_emb == "concat":
            extra = channels if self.pos_emb_width is None else self.pos_emb_width
        embedded = channels + extra
        return keys, values, extra or channels, embedded, embedded if self.val_pos_emb else channels

    @property
    def takes_masks(self) -> bool:
        return True

    def presence(self, mask: jax.Array) -> jax.Array:
        return mask

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        self.output_shape(shape)
        dtype = jnp.result_type(float) if dtype is None else dtype
        keys, values, embedding, key_inputs, value_inputs = self._widths(shape[-1])
        scales, tied = self._scales(shape[-1]), self.scaling == "linear"
        shapes: dict[str, tuple[int, ...]] = {
            "key": (self.heads, key_inputs, keys),
            "value": (self.heads, value_inputs, values),
            "out": (self.heads, values, self.width),
        }
        if not tied:
            shapes["query"] = (self.heads, key_inputs, keys)
        if self.b_std is not None:
            shapes["b"] = (self.width,)
        if self.pos_emb != "none":
            shapes["pos_emb"] = (math.prod(shape[:-1]), embedding)
        drawn = {}
        for i, name in enumerate(("key", "value", "out", "query", "b", "pos_emb")):
            if name in shapes:
                normal = jax.random.normal(jax.random.fold_in(key, i), shapes[name], dtype)
                drawn[name] = scales.init(name, tied) * normal
        return drawn

    def apply(self, params: Params, x: Any) -> jax.Array:
        sizes, keys, present = x.shape[1:-1], params["key"].shape[2], mask_of(x, 1, 1, -1)
        s = self._scales(x.shape[-1])
        x = nodes(x).reshape(len(x), -1, x.shape[-1])
        scores = self._embedded(params, x, sizes)
        values = scores if self.val_pos_emb else x
        if scores.shape[-1] != params["key"].shape[1]:
            raise InputError(
                f"GlobalSelfAttention was initialized for {params['key'].shape[1]} channels of "
                f"keys, but got {scores.shape[-1]}. Initialize with the shape of one example, "
                "net.init(key, x.shape[1:])."
            )
        k = jnp.einsum("nsc,hcd->nhsd", scores, params["key"])
        q = jnp.einsum("nsc,hcd->nhsd", scores, params.get("query", params["key"]))
        norm = keys if self.scaling == "linear" else keys**0.5
        z = self._weights(s.logit / norm * (q @ jnp.swapaxes(k, 2, 3)), present)
        v = jnp.einsum("nsc,hcd->nhsd", values, params["value"])
        y = jnp.einsum("nhsd,hdo->nso", z @ v, params["out"])
        y = y * (s.value.weight_scale * s.out.weight_scale)
        if "b" in params:
            y = y + s.out.bias_scale * params["b"].reshape(1, 1, -1)
        return y.reshape(len(y), *sizes, self.width)

    def _embedded(self, params: Params, x: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
        """Inputs of queries and keys."""
        if self.pos_emb == "none":
            return x
        scale = self._scales(x.shape[-1]).embedding.weight_scale
        mixed = mix_positions(params["pos_emb"], sizes, self.pos_emb_decay, self.pos_emb_p_norm)
        return embed(x, scale * mixed[None], self.pos_emb)

    def _scales(self, channels: int) -> AttentionScales:
        """Scales for inputs with that many channels."""
        keys, values, embedding, key_inputs, value_inputs = self._widths(channels)
        widths = self.heads * keys, self.heads * values, self.width
        queries = self.w_query_std, self.w_key_std
        stds = *queries, self.w_value_std, self.w_out_std, self.b_std, self.w_pos_emb_std
        read = key_inputs, value_inputs, embedding
        return attention_scales(self.parameterization, read, widths, stds)

    def _weights(self, logits: jax.Array, present: jax.Array | None) -> jax.Array:
        return attention_weights(self.mechanism, self.causal, logits, present)

    def need(self, after: Need) -> Need:
        return replace(after, carry=Carry.OWN, variances=True)

    def propagate(self, state: State) -> State:
        state = moments(state)
        plain, layout = matrices(state)
        present = present_positions(state, layout)
        scores = self._embedded_moments(plain, state.channels, layout.shape)
        scores = scores.without_absent(present, layout)
        values = scores if self.val_pos_emb else plain
        s = self._scales(state.channels)
        logits = s.query_key, s.query_key_share
        if self.scaling == "linear":
            heads = fixed_weights(scores, values, layout, logits[0], self._weights, present)
        elif self.mechanism == "identity":
            heads = linear_attention(scores, values, *logits, self.causal)
        else:
            slopes = partial(attention_slopes, self.mechanism, self.causal)
            mechanism = Mechanism(self._weights, None if self.mechanism == "softmax" else slopes)
            seed = jax.lax.stop_gradient(jnp.asarray(self.seed)).astype(jnp.int32)
            draws = present, self.samples, jax.random.key(seed)
            heads = random_weights(scores, values, layout, *logits, mechanism, *draws)
        heads = heads.weighted(s.output_value, s.output_value_share)
        bias = None if self.b_std is None else (s.out.constant(), s.out.bias_tangent())
        return readout(state, heads, self.width, bias)

    def native_step(self, shape: tuple[int, ...]) -> Step | None:
        plain = self.scaling == "linear" and self.mechanism == "softmax"
        if not plain or self.parameterization != "ntk":
            return None
        (share, covariance), s = self._embedding(shape[-1], shape[:-1]), self._scales(shape[-1])
        bias = 0.0 if self.b_std is None else s.out.constant()
        scores = share, s.embedding.signal(1) * covariance
        both = s.query_key, self.w_out_std * self.w_value_std
        return Attend(*both, bias, self.causal, self.val_pos_emb, scores)

    def _embedding(self, channels: int, sizes: tuple[int, ...]) -> tuple[float, np.ndarray]:
        """Factor on the moments of inputs of queries and keys, and covariance that is added.

        The latter is times the embeddings' variance, in which kernels are differentiable.
        """
        if self.pos_emb == "none":
            return 1.0, np.zeros((math.prod(sizes),) * 2)
        covariance = embedding_covariance(sizes, self.pos_emb_decay, self.pos_emb_p_norm)
        _, _, extra, total, _ = self._widths(channels)
        share = (1.0, 1.0) if self.pos_emb == "sum" else (channels / total, extra / total)
        return share[0], share[1] * covariance

    def _embedded_moments(self, plain: Moments, channels: int, sizes: tuple[int, ...]) -> Moments:
        """Moments of the inputs of queries and keys."""
        if self.pos_emb == "none":
            return plain
        share, covariance = self._embedding(channels, sizes)
        of, covariance = self._scales(channels).embedding, jnp.asarray(covariance, plain.cov.dtype)
        return plain.affine(share, of.signal(1) * covariance, of.weight_tangent(1) * covariance)
