"""The coordinate check: how far each layer moves in training, against the width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError
from ntk_lab.nn.module import Module
from ntk_lab.theory.layers import layer_names, unrolled, with_params
from ntk_lab.train import ensemble


@dataclass(frozen=True)
class CoordinateCheck:
    """Root mean square motion of a coordinate of each layer.

    Attributes
    ----------
    layers
        Names of the ``L`` layers in order, the last being the outputs.
    widths
        Widths ``(k,)``.
    moves
        ``(L, k, seeds)``: root mean square over inputs and channels of the change in training.
    """

    layers: tuple[str, ...]
    widths: np.ndarray
    moves: np.ndarray

    def exponents(self) -> tuple[np.ndarray, np.ndarray]:
        """Power of the width in each layer's motion, and its standard error over seeds: ``(L,)``.

        Fitted for each seed by itself, whose networks are independent across widths.
        """
        logs = np.log(self.widths) - np.log(self.widths).mean()
        each = np.einsum("k,lks->ls", logs, np.log(self.moves)) / (logs**2).sum()
        return each.mean(1), each.std(1, ddof=1) / each.shape[1] ** 0.5


def coordinate_check(
    net: Module,
    x: Any,
    y: Any,
    key: jax.Array,
    *,
    widths: Sequence[int],
    learning_rate: float,
    steps: int = 5,
    seeds: int = 8,
    optimizer: Callable[[float], optax.GradientTransformation] = optax.sgd,
) -> CoordinateCheck:
    """Train networks of several widths for a few steps, and measure how far each layer moves.

    In a feature-learning parameterization all layers move by order one at every width; in a kernel
    regime hidden ones by ``width^-r``, and what is unstable by a positive power
    (arXiv:2203.03466, section 5; arXiv:2011.14522). See :func:`dynamical_dichotomy`.

    Parameters
    ----------
    net
        Architecture and parameterization; its own width does not matter.
    x, y
        Inputs ``(n, *shape)`` and targets ``(n, outputs)``; the loss is squared error.
    key
        Randomness.
    widths, seeds
        Widths, at least two, and networks of each, at least two.
    learning_rate, steps
        Of full-batch training; the rate is multiplied by ``net.learning_rate_scale()``.
    optimizer
        From a learning rate to an optimizer.

    Returns
    -------
    CoordinateCheck
        In float64. Motion that is not finite, of what is unstable, is an error.

    Raises
    ------
    InputError
        Too few widths or seeds, or motion that is not finite: fewer steps are needed.
    """
    widths = tuple(int(w) for w in widths)
    if len(set(widths)) < 2 or seeds < 2:
        raise InputError(f"widths={widths}, seeds={seeds}; exponents take two or more of each.")
    x, y, moves = jnp.asarray(x), jnp.asarray(y), []
    for i, width in enumerate(widths):
        wide = net.with_width(width)
        keys = jax.random.split(jax.random.fold_in(key, i), seeds)
        params = _initial(wide, keys, x.shape[1:])
        rate = learning_rate * wide.learning_rate_scale()
        run = ensemble(
            wide.apply, params, x, y, optimizer=optimizer(rate), steps=steps, record=(0, steps),
            keep_params="ends", divergence="record",
        )  # fmt: skip
        start, end = (jax.tree.map(lambda p, t=t: p[:, t], run.params) for t in (0, 1))
        before, after = (_layers(wide, p, x) for p in (start, end))
        moves.append([_root_mean_square(b - a) for a, b in zip(before, after, strict=True)])
    found = np.asarray(moves).transpose(1, 0, 2)
    if not np.isfinite(found).all():
        raise InputError(
            f"after {steps} steps at learning_rate={learning_rate} some networks are not finite: "
            "use fewer steps, or a smaller rate."
        )
    return CoordinateCheck(layer_names(list(unrolled(net))), np.asarray(widths), found)


@compiled(static_argnums=(0, 2))
def _initial(net: Module, keys: jax.Array, shape: tuple[int, ...]) -> Any:
    return jax.vmap(lambda key: net.init(key, shape))(keys)


def _layers(net: Module, params: Any, x: jax.Array) -> list[np.ndarray]:
    """Outputs of every layer, ``(seeds, n, ...)``."""
    seeds = len(jax.tree.leaves(params)[0])
    h, found = jnp.broadcast_to(x, (seeds, *x.shape)), []
    for layer, p in with_params(net, params):
        h = jax.vmap(layer.apply)(p, h)
        found.append(np.asarray(h, float))
    return found


def _root_mean_square(change: np.ndarray) -> np.ndarray:
    return np.sqrt((change.reshape(len(change), -1) ** 2).mean(1))
