"""Dropout, and how a finite network is told to draw its masks."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError
from ntk_lab.kernel import Covariance, Features, Gaussian, Inputs, State
from ntk_lab.kernel.layout import Diagonal, Full, Layout, same_position
from ntk_lab.nn.module import Module, Params, module


class _Masks:
    """Keys for the masks of one pass through a network, a fresh one for each layer."""

    def __init__(self, key: jax.Array):
        self._key, self._drawn = key, 0

    def next_key(self) -> jax.Array:
        self._drawn += 1
        return jax.random.fold_in(self._key, self._drawn)


_MASKS: ContextVar[_Masks | None] = ContextVar("masks", default=None)


def with_dropout(apply: Callable, key: jax.Array) -> Callable:
    """``apply(params, x)`` with random masks in its :class:`Dropout` layers.

    Parameters
    ----------
    apply
        Function of ``(params, x)`` that calls networks of this library, such as ``net.apply``.
    key
        Decides all masks: one for each entry of each layer's batch. The same key gives the same
        masks; use a new one at every step of training.

    Notes
    -----
    Works inside ``jit`` and ``grad``, the key being an argument of the compiled function. Under
    ``vmap`` over examples all of them get one mask: pass the whole batch, as training does.
    Layers that a loop of JAX repeats (``scan``) share one mask.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(100), ntk.nn.Dropout(0.5))
    >>> params = net.init(jax.random.key(0), (3,))
    >>> y = ntk.nn.with_dropout(net.apply, jax.random.key(1))(params, jnp.ones((2, 3)))
    >>> bool(30 < (y == 0).mean() * 100 < 70)
    True
    """

    def apply_with_masks(params: Params, x: jax.Array) -> jax.Array:
        token = _MASKS.set(_Masks(key))
        try:
            return apply(params, x)
        finally:
            _MASKS.reset(token)

    return apply_with_masks


@module
class Dropout(Module):
    """Sets entries to zero at random and divides the others by ``keep_prob``.

    Parameters
    ----------
    keep_prob
        Probability to keep an entry, above 0 and at most 1. (neural-tangents calls this ``rate``;
        elsewhere ``rate`` is the probability to drop.)
    mode
        ``"train"``, or ``"test"``: the identity, in both halves.

    Notes
    -----
    The finite half draws masks only where it is given a key, by :func:`with_dropout`; plain
    ``net.apply(params, x)`` drops nothing in either mode, as one predicts.

    The kernel in mode ``"train"`` is that of one pass: variances, and the entries of ``q`` and
    ``t`` that pair an example and a position with themselves, are multiplied by
    ``1 / keep_prob``. Different positions or examples have independent masks, even if their data
    are equal. What follows is no longer Gaussian: a layer with weights must come before the next
    activation. Cost: elementwise. arXiv:1611.01232, section 4.

    Raises
    ------
    InputError
        A probability outside ``(0, 1]``, an unknown mode, or a kernel with dropout of data: their
        channels are too few for the average over masks to be a number.
    """

    keep_prob: float
    mode: str = "train"

    def __post_init__(self):
        if isinstance(self.keep_prob, int | float) and not 0 < self.keep_prob <= 1:
            raise InputError(
                f"Dropout got keep_prob={self.keep_prob}; the probability to keep an entry is "
                "above 0 and at most 1."
            )
        if self.mode not in ("train", "test"):
            raise InputError(f"Dropout got mode={self.mode!r}; choose 'train' or 'test'.")

    @property
    def keeps_independence(self) -> bool:
        return True

    def presence(self, mask: jax.Array) -> jax.Array:
        return mask

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        return ()

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        masks = _MASKS.get()
        if masks is None or self.mode == "test":
            return x
        kept = jax.random.bernoulli(masks.next_key(), self.keep_prob, x.shape)
        return jnp.where(kept, x / self.keep_prob, 0)

    def propagate(self, state: State) -> State:
        if self.mode == "test":
            return state
        if isinstance(state, Inputs):
            raise InputError(
                "Dropout of the data themselves has no infinite-width kernel in mode 'train': put "
                "a layer with weights, such as ntk.nn.Dense(...), before it."
            )
        same = _same(state)
        growth = 1 / self.keep_prob
        layout = state.layout
        if isinstance(layout, Full) and layout.own is not None:
            own = _dropped(layout.own, same_position(layout.shape, state.ntk) > 0, growth)
            layout = replace(layout, own=own)
        ntk = state.ntk * jnp.where(same, growth, 1)
        cov = _dropped(state.cov, same, growth)
        state = state.features() if isinstance(state, Gaussian) else state
        return replace(state, cov=cov, ntk=ntk, layout=layout)


def _same(state: Features) -> jax.Array:
    """Mask of the entries that pair an example and a position with themselves."""
    layout: Layout = state.layout
    known = jnp.zeros((1,) * 2, bool) if state.same is None else state.same
    if isinstance(layout, Full):
        known = known.reshape(*(1,) * 2 * len(layout.shape), -1)
        return (same_position(layout.shape, state.ntk) > 0) & known
    if isinstance(layout, Diagonal):
        return known.reshape(*(1,) * len(layout.shape), *known.shape)
    return known


def _dropped(k: Covariance, same: jax.Array, growth: float) -> Covariance:
    """Covariance with variances, and entries in ``same``, multiplied by ``growth``."""
    cov = k.cov * jnp.where(same, growth, 1)
    # sqrt(growth^2 var1 var2) - |cov|, nothing cancels.
    others = jax.lax.stop_gradient(jnp.where(same, 0, jnp.abs(k.cov)))
    gap = growth * k.gap + (growth - 1) * others
    return Covariance(k.var1 * growth, k.var2 * growth, cov, gap)
