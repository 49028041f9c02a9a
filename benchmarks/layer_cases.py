"""Every public layer in a small network: what benchmarks/layer_table.py measures."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab import nn

OUTPUTS = 32
WIDTHS = (16, 64, 256)
# Attention has two more sizes, heads and channels of a key, that grow with the width.
ATTENTION_WIDTHS = (16, 48, 144)
# Behind them Erf has near-duplicates at variances up to 100: the angle has lost two digits.
ILL_CONDITIONED = {"Monomial", "GlobalSumPool"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes
    ----------
    layer, group : name in ``ntk_lab.nn``, and the heading under which it is listed
    build : network of that width
    inputs : ``inputs(which)`` gives examples, see :func:`points`
    variant : what distinguishes rows of one layer
    kind : ``pair``, ``kernel only`` or ``finite only``
    widths, seeds : networks that are drawn; of the largest width half as many
    per_width : the kernel depends on the width, as in other parameterizations than ``ntk``
    masks : random masks are drawn for each network
    sampled : the kernel is an average over random draws, here over so many seeds
    """

    layer: str
    group: str
    build: Callable[[int], Any]
    inputs: Callable[[str], Any]
    variant: str = ""
    kind: str = "pair"
    widths: tuple[int, ...] = WIDTHS
    seeds: int = 1024
    per_width: bool = False
    masks: bool = False
    sampled: int = 0

    @property
    def name(self) -> str:
        return f"{self.layer}, {self.variant}" if self.variant else self.layer

    @property
    def float32_limit(self) -> float:
        """Largest error that the test allows in single precision."""
        return 1e-5 if self.layer in ILL_CONDITIONED else 2e-6


def points(*shape: int) -> Callable[[str], jax.Array]:
    """Five examples: ``generic`` ones, or with special positions among them.

    ``near``: a near-duplicate, an antipode and zero. ``singular``: the same, but a true duplicate.
    """

    def inputs(which: str) -> jax.Array:
        x = jnp.asarray(np.random.default_rng(3).normal(size=(5, *shape)), float)
        if which == "generic":
            return x
        second = x[0] if which == "singular" else x[0] + 0.01 * x[4]
        return jnp.stack([x[0], second, x[1], -x[1], 0 * x[0]])

    return inputs


def tokens(which: str) -> jax.Array:
    return jnp.array([[0, 1, 2], [2, 1, 1], [4, 1, 2], [0, 1, 2], [3, 3, 3]])


def graphs(which: str) -> nn.Graph:
    pattern = np.random.default_rng(1).integers(0, 2, size=(5, 4, 4)).astype(float)
    if which == "singular":
        pattern[1] = pattern[0]
    return nn.Graph(points(4, 2)(which), jnp.asarray(pattern))


VECTORS, SEQUENCES, IMAGES = points(4), points(3, 2), points(3, 4, 2)


def dense(middle: Any) -> Callable[[int], nn.Module]:
    """Network with two hidden layers, the given one or ones behind the first."""

    def build(width: int) -> nn.Module:
        layers = middle(width) if callable(middle) else middle
        layers = layers if isinstance(layers, tuple) else (layers,)
        first, second = nn.Dense(width, 1.3, 0.3), nn.Dense(width, 1.2, 0.2)
        return nn.Sequential(first, *layers, second, nn.Erf(), nn.Dense(OUTPUTS, 1.1, 0.1))

    return build


def positions(layers: Callable[[int], tuple], pool: nn.Module | None = None):
    """Network over positions: given layers, a hidden layer, pooling, readout."""
    pool = nn.GlobalAvgPool() if pool is None else pool

    def build(width: int) -> nn.Module:
        hidden = nn.Dense(width, 1.2, 0.2), nn.Erf()
        return nn.Sequential(*layers(width), *hidden, pool, nn.Dense(OUTPUTS, 1.1, 0.1))

    return build


def behind_relu(layer: nn.Module, pool: nn.Module | None = None):
    return positions(lambda w: (nn.Dense(w, 1.3, 0.3), nn.Relu(), layer), pool)


def weighted() -> list[Case]:
    """Layers with weights, and the parameterizations."""
    group = "with weights"

    def conv(layer, **options):
        return positions(
            lambda w: (layer(w, (2, 3), w_std=1.3, b_std=0.3, **options), nn.Relu()),
            nn.Sequential(nn.AvgPool((2, 2)), nn.Flatten()),
        )

    def rnn(w):
        return nn.SimpleRNN(w, 0.9, 1.2, 0.3), nn.Dense(OUTPUTS, 1.1, 0.1)

    cases = [
        Case("Dense", group, dense(()), VECTORS),
        Case("Conv", group, conv(nn.Conv), IMAGES),
        Case("Conv", group, conv(nn.Conv, padding="CIRCULAR"), IMAGES, "circular"),
        Case("Conv", group, conv(nn.Conv, strides=(1, 2)), IMAGES, "strides"),
        Case("ConvTranspose", group, conv(nn.ConvTranspose, strides=(2, 1)), IMAGES),
        Case("ConvLocal", group, conv(nn.ConvLocal), IMAGES),
        Case("Embedding", group, positions(lambda w: (nn.Embedding(w, 5, 1.3), nn.Relu())), tokens),
        Case("SimpleRNN", group, lambda w: nn.Sequential(*rnn(w)), SEQUENCES),
    ]
    named: dict[str, Any] = {name: name for name in ("standard", "mean_field", "mup")}
    named |= {"Standard((1, 2))": None, "ABC(0.3, 0.2)": nn.ABC(0.3, 0.2)}
    for name, value in named.items():
        build = with_factors if value is None else parameterized(value)
        cases.append(Case("Dense", "parameterizations", build, VECTORS, name, per_width=True))
    return cases


def parameterized(value: Any) -> Callable[[int], nn.Module]:
    return lambda width: dense(nn.Relu())(width).with_parameterization(value)


def with_factors(width: int) -> nn.Module:
    """Widths in two factors; each layer must know that of the one before."""
    return nn.Sequential(
        nn.Dense(width // 2, 1.3, 0.3, nn.Standard((1, 2))),
        nn.Relu(),
        nn.Dense(width // 2, 1.2, 0.2, nn.Standard((2, 2))),
        nn.Erf(),
        nn.Dense(OUTPUTS, 1.1, 0.1, nn.Standard((2, 1))),
    )


def activations() -> list[Case]:
    group = "activations in closed form"
    closed = [
        nn.Relu(),
        nn.LeakyRelu(0.2),
        nn.ABRelu(0.5, -1.5),
        nn.Abs(),
        nn.Erf(1.2, 0.7, 0.3),
        nn.Gelu(),
        nn.Sin(1.2, 0.8, 0.3),
        nn.Cos(0.7, 1.1, 0.2),
        nn.Gaussian(1.3, -0.6),
        nn.Gabor(),
        nn.Exp(0.9, 0.4),
        nn.Rbf(0.6),
        nn.Sign(),
        nn.Monomial(2),
        nn.RectifiedMonomial(2),
        nn.Polynomial((0.1, 0.5, -0.2)),
        nn.SigmoidLike(),
    ]
    expanded = [
        nn.Tanh(),
        nn.Sigmoid(),
        nn.Silu(),
        nn.Softplus(),
        nn.Elu(),
        nn.Selu(),
        nn.Mish(),
        nn.Elementwise("jax.numpy.arctan"),
    ]
    exp_normalized = nn.ExpNormalized(0.8, -0.5)
    cases = [Case(type(a).__name__, group, dense(a), VECTORS) for a in closed]
    cases += [
        Case("Hermite", group, dense((nn.RMSNorm(), nn.Hermite(2))), VECTORS),
        Case("ExpNormalized", group, dense(exp_normalized), VECTORS, kind="kernel only"),
    ]
    group = "activations by expansion or integration"
    cases += [Case(type(a).__name__, group, dense(a), VECTORS) for a in expanded]
    hard = nn.Elementwise("jax.nn.hard_tanh", kinks=(-1.0, 1.0))
    return [*cases, Case("Elementwise", group, dense(hard), VECTORS, "kinks")]


def shapes() -> list[Case]:
    group = "pooling and shape"
    flat = nn.Flatten()
    first = (((1,), (0,)), ((), ()))
    contraction = nn.DotGeneral(rhs=[1.0, -1.0, 0.5], dimension_numbers=first)
    cases = [
        Case("AvgPool", group, behind_relu(nn.AvgPool((2, 2), (1, 2)), flat), IMAGES),
        Case("SumPool", group, behind_relu(nn.SumPool((2, 2), padding="SAME"), flat), IMAGES),
        Case("GlobalAvgPool", group, behind_relu(nn.GlobalAvgPool(), nn.Identity()), IMAGES),
        Case("GlobalSumPool", group, behind_relu(nn.GlobalSumPool(), nn.Identity()), IMAGES),
        Case("Flatten", group, behind_relu(flat, nn.Identity()), IMAGES),
        Case("ImageResize", group, behind_relu(nn.ImageResize((2, 5))), IMAGES),
        Case("Index", group, behind_relu(nn.Index((slice(None, None, -2), -1))), IMAGES),
        Case("DotGeneral", group, behind_relu(contraction), IMAGES),
        Case("Aggregate", group, behind_relu(nn.Aggregate()), graphs),
    ]
    largest = Case("MaxPool", group, behind_relu(nn.MaxPool((2, 2))), IMAGES, kind="finite only")
    return [*cases, largest]


def combinations() -> list[Case]:
    group = "combination"

    def branch(width, activation):
        return nn.Sequential(activation, nn.Dense(width, 1.1, 0.2))

    def two(layer, *more):
        return lambda w: layer(branch(w, nn.Erf()), branch(w, nn.Relu()), *more)

    return [
        Case("Sequential", group, dense(lambda w: branch(w, nn.Relu())), VECTORS),
        Case("Identity", group, dense(nn.Identity()), VECTORS),
        Case("Residual", group, dense(lambda w: nn.Residual(branch(w, nn.Relu()))), VECTORS),
        Case("Sum", group, dense(two(nn.Sum)), VECTORS),
        Case("Product", group, dense(two(nn.Product)), VECTORS),
        Case("Concat", group, dense(two(nn.Concat)), VECTORS),
        Case("Repeat", group, dense(lambda w: nn.Repeat(branch(w, nn.Erf()), 2)), VECTORS),
        Case("Scale", group, dense(nn.Scale(-1.5)), VECTORS),
        Case("Frozen", group, dense(lambda w: nn.Frozen(branch(w, nn.Relu()))), VECTORS),
    ]


def normalized() -> list[Case]:
    group = "normalization, attention"
    relu = nn.Relu()
    return [
        Case("LayerNorm", group, dense((nn.LayerNorm(), relu)), VECTORS),
        Case("LayerNorm", group, dense(nn.LayerNorm(trainable=True)), VECTORS, "trainable"),
        Case("RMSNorm", group, dense((nn.RMSNorm(), relu)), VECTORS),
        Case("BatchNorm", group, dense((nn.BatchNorm(), relu)), VECTORS, kind="finite only"),
        Case("Dropout", group, dense((relu, nn.Dropout(0.7))), VECTORS, masks=True),
        _attention(),
        _attention("sqrt, identity", scaling="sqrt", mechanism="identity"),
        _attention("sqrt, softmax", scaling="sqrt", sampled=8),
        _transformer("TransformerBlock", _block),
        _transformer("Transformer", lambda w: nn.Transformer(2, w, OUTPUTS, **_sizes(w))),
    ]


def _heads(width: int) -> dict[str, int]:
    return {"heads": width // 2, "key_width": width // 2, "value_width": 2}


def _sizes(width: int) -> dict[str, Any]:
    return {**_heads(width), "hidden": width, "b_std": 0.2}


def _block(width: int) -> nn.Module:
    block = nn.TransformerBlock(width, **_sizes(width))
    ends = nn.LayerNorm(), nn.GlobalAvgPool(), nn.Dense(OUTPUTS, 1.1, 0.1)
    return nn.Sequential(nn.Dense(width, 1.2, 0.3), block, *ends)


def _attention(variant: str = "", sampled: int = 0, **options: Any) -> Case:
    scales = {"w_query_std": 1.3, "w_value_std": 1.1, "b_std": 0.3}

    def build(width: int) -> nn.Module:
        attention = nn.GlobalSelfAttention(width, **_heads(width), **scales, **options)
        ends = nn.GlobalAvgPool(), nn.Dense(OUTPUTS, 1.1, 0.1)
        return nn.Sequential(nn.Dense(width, 1.2, 0.2), attention, *ends)

    case = _transformer("GlobalSelfAttention", build)
    return dataclasses.replace(case, variant=variant, seeds=1024, sampled=sampled)


def _transformer(layer: str, build: Callable[[int], nn.Module]) -> Case:
    options = {"widths": ATTENTION_WIDTHS, "seeds": 512}
    return Case(layer, "normalization, attention", build, SEQUENCES, **options)


CASES = [*weighted(), *activations(), *shapes(), *combinations(), *normalized()]
