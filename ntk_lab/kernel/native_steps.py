"""Layers as loops compiled for the CPU take them: what the architecture hands to ``native*``."""

from dataclasses import dataclass, field

import numpy as np

from ntk_lab.kernel.positions import Window


@dataclass(frozen=True)
class Filter:
    """A layer with shared weights: windows, and its scales as ``Weighted`` uses them."""

    windows: tuple[Window, ...]
    signal: float
    constant: float
    weight_tangent: float
    bias_tangent: float

    @property
    def windows_of_two(self) -> tuple[Window, ...]:
        """Windows of two axes, the first of which may be of size one."""
        return (Window.single(),) * (2 - len(self.windows)) + self.windows


@dataclass(frozen=True)
class TwoSlopes:
    """Activation ``a min(x, 0) + b max(x, 0)``."""

    a: float
    b: float


@dataclass(frozen=True)
class Erf:
    """Activation ``a erf(b x) + c``, of vectors only."""

    a: float
    b: float
    c: float


@dataclass(frozen=True)
class Fork:
    """Begin of a branch beside a skip connection, of vectors only."""


@dataclass(frozen=True)
class Join:
    """End of the branch: its output is added to what stood at the last :class:`Fork`."""


@dataclass(frozen=True)
class Mix:
    """Pooling: one matrix for each spatial axis."""

    matrices: tuple[np.ndarray, ...] = field(hash=False, compare=False)

    @property
    def matrices_of_two(self) -> tuple[np.ndarray, ...]:
        """Matrices of two axes, the first of which may be of size one."""
        return (np.eye(1),) * (2 - len(self.matrices)) + self.matrices


@dataclass(frozen=True)
class Average:
    """Pooling over all positions, times ``factor``: the end of what is computed here."""

    factor: float


@dataclass(frozen=True)
class Flat:
    """Flattening: a mean over equal positions, the end of what is computed by loops."""


@dataclass(frozen=True)
class Attend:
    """Softmax attention with scaling ``1/d``, of positions flattened to one axis.

    Queries and keys see ``scores[0]`` times the input plus independent embeddings of covariance
    ``scores[1]``, ``(s, s)``, between positions; values the same (``embeds_values``) or the input.
    ``query_key`` and ``output_value`` are products of scales, ``bias`` is a variance.
    """

    query_key: float
    output_value: float
    bias: float
    causal: bool
    embeds_values: bool
    scores: tuple[float, np.ndarray] = field(hash=False, compare=False)

    @property
    def values(self) -> tuple[float, np.ndarray]:
        """Factor and constant that make the moments of values from those of the input."""
        return self.scores if self.embeds_values else (1.0, np.zeros_like(self.scores[1]))

    def weights(self, values: np.ndarray) -> np.ndarray:
        """Attention weights times output scale, from own covariances of values ``(n, s, s)``."""
        factor, constant = (1.0, np.zeros(())) if self.embeds_values else self.scores
        logits = (self.query_key * factor) * values
        logits += (self.query_key * constant).astype(values.dtype)
        if self.causal:
            logits = np.where(np.tri(logits.shape[-1], dtype=bool), logits, -np.inf)
        logits -= logits.max(axis=-1, keepdims=True)
        weights = np.exp(logits, out=logits)
        weights *= self.output_value / weights.sum(axis=-1, keepdims=True)
        return weights


Step = Filter | TwoSlopes | Erf | Fork | Join | Mix | Average | Flat | Attend
