"""Scales of the linear maps inside self-attention, each a layer in a parameterization."""

from typing import Any, NamedTuple

from ntk_lab.nn.parameterization import Parameterization, Scales, scales


class AttentionScales(NamedTuple):
    """Scales of the maps to queries, keys and values, of the readout, and of embeddings.

    ``scores`` and ``values`` are channels of what the maps read, ``heads`` of what the readout
    does.
    """

    query: Scales
    key: Scales
    value: Scales
    out: Scales
    embedding: Scales
    scores: int
    values: int
    heads: int

    @property
    def logit(self) -> Any:
        """Factor in front of products of queries and keys."""
        return self.query.weight_scale * self.key.weight_scale

    @property
    def query_key(self) -> Any:
        """Standard deviation of logits: root of the product of both signals."""
        query, key = (s.weight_scale * s.weight_init for s in (self.query, self.key))
        return self.scores * query * key

    @property
    def query_key_share(self) -> Any:
        """Factor on both maps' own share of the NTK of logits."""
        return _share(self.query, self.scores, self.key, self.scores)

    @property
    def output_value(self) -> Any:
        """Factor on the variance of what goes through values and the readout."""
        return self.value.signal(self.values) * self.out.signal(self.heads)

    @property
    def output_value_share(self) -> Any:
        """Factor on the values' and the readout's own share of the NTK."""
        return _share(self.value, self.values, self.out, self.heads)

    def init(self, name: str, tied: bool) -> Any:
        """Standard deviation of initial parameters of that name."""
        if name == "key" and tied:
            # One matrix in place of two, whose product has the scale of theirs.
            return (self.query.weight_init * self.key.weight_init) ** 0.5
        if name == "b":
            return self.out.bias_init
        return getattr(self, "embedding" if name == "pos_emb" else name).weight_init


def attention_scales(
    name: Parameterization,
    channels: tuple[int, int, int],
    widths: tuple[int, int, int],
    stds: tuple,
) -> AttentionScales:
    """Scales from channels and standard deviations.

    ``channels`` are those of the inputs of queries and keys, of the inputs of values, and of
    embeddings; ``widths`` those of all heads' keys, of all heads' values, and of the output.
    ``stds`` are of queries, keys, values, readout, bias and embeddings.
    """
    (scores, values, embedded), (keys, heads, width) = channels, widths
    query, key, value, out, bias, embedding = stds
    # A mean-field layer is one under a readout of 1/n: in attention that is the last map alone.
    inner = "ntk" if name == "mean_field" else name
    return AttentionScales(
        scales(inner, scores, keys, keys, query, None),
        scales(inner, scores, keys, keys, key, None),
        scales(inner, values, heads, heads, value, None),
        scales(name, heads, width, width, out, bias),
        scales(inner, 1, embedded, embedded, embedding, None),
        scores,
        values,
        heads,
    )


def _share(first: Scales, n: int, second: Scales, m: int) -> Any:
    return first.signal(n) * second.weight_tangent(m) + second.signal(m) * first.weight_tangent(n)
