"""How variances, correlations and both kernels change from layer to layer: predicted, measured."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError
from ntk_lab.kernel import Features, Inputs, Need, check_inputs, moments
from ntk_lab.kernel.layout import Carry, Full, Vector, diagonal_of
from ntk_lab.nn.module import Module
from ntk_lab.theory.block import distance_of
from ntk_lab.theory.layers import layer_names, unrolled, with_params


@dataclass(frozen=True)
class Signal:
    """Moments of a network's layers on ``n`` inputs; entry zero is the data.

    Attributes
    ----------
    layers
        Names of the ``L`` layers, those of repeated blocks one by one.
    covariance
        ``E[h(x) h(x')]`` of one channel, ``(L + 1, n, n)``; with positions, the mean over equal
        ones.
    distance
        One minus the correlation, ``(L + 1, n, n)``, without cancellation for vectors.
    ntk
        NTK of the layers so far, ``(L + 1, n, n)``; zero for the data.
    """

    layers: tuple[str, ...]
    covariance: np.ndarray
    distance: np.ndarray
    ntk: np.ndarray

    @property
    def variance(self) -> np.ndarray:
        """``(L + 1, n)``."""
        return np.diagonal(self.covariance, axis1=1, axis2=2)

    @property
    def correlation(self) -> np.ndarray:
        """``(L + 1, n, n)``."""
        return 1 - self.distance

    def after(self, name: str) -> np.ndarray:
        """Numbers of the entries that follow layers of that name, such as ``"Dense"``."""
        found = [i + 1 for i, layer in enumerate(self.layers) if layer == name]
        if not found:
            raise InputError(f"no layer is called {name!r}; there are {sorted(set(self.layers))}.")
        return np.asarray(found)

    def spectrum(self, kernel: str = "ntk") -> np.ndarray:
        """Eigenvalues of ``"nngp"`` or ``"ntk"`` after each layer, falling: ``(L + 1, n)``."""
        if kernel not in ("nngp", "ntk"):
            raise InputError(f"kernel={kernel!r}; choose 'nngp' or 'ntk'.")
        matrices = self.covariance if kernel == "nngp" else self.ntk
        return np.linalg.eigvalsh(np.asarray(matrices, float))[:, ::-1]

    def condition(self, kernel: str = "ntk") -> np.ndarray:
        """Largest over smallest eigenvalue after each layer, ``(L + 1,)`` (arXiv:1912.13053).

        NaN where the matrix is singular to rounding.
        """
        values = self.spectrum(kernel)
        eps = np.finfo(self.ntk.dtype).eps * values.shape[1]
        usable = values[:, -1] > eps * values[:, 0]
        return np.where(usable, values[:, 0] / np.where(usable, values[:, -1], 1), np.nan)


@dataclass(frozen=True)
class MeasuredSignal:
    """Mean over random networks of what :class:`Signal` predicts, and its standard error.

    ``covariance`` and ``error`` are ``(L + 1, n, n)``: means over channels and positions of
    products of activations.
    """

    layers: tuple[str, ...]
    covariance: np.ndarray
    error: np.ndarray
    seeds: int


def signal_propagation(net: Module, x: Any) -> Signal:
    """Infinite-width moments after every layer of a network, by the rules of its kernel.

    Parameters
    ----------
    net
        Any architecture; what ``Sequential`` and ``Repeat`` hold is taken layer by layer, all
        other modules whole.
    x
        Inputs ``(n, *shape)``; :func:`signal_inputs` makes two of a given correlation.

    Returns
    -------
    Signal
        In the dtype of the inputs. The last entries are ``net.kernel(x)``.

    Raises
    ------
    InputError
        Inputs that do not fit.

    Notes
    -----
    arXiv:1606.05340, 1611.01232. Cost: that of the kernel, which is not compiled as a whole:
    some milliseconds a layer.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> layer = ntk.nn.Dense(64, w_std=1.5), ntk.nn.Erf()
    >>> net = ntk.nn.Sequential(*layer, *layer, ntk.nn.Dense(1))
    >>> found = ntk.theory.signal_propagation(net, ntk.theory.signal_inputs((4,), 1.0, 0.5))
    >>> found.layers
    ('Dense', 'Erf', 'Dense', 'Erf', 'Dense')
    >>> found.correlation[0, 0, 1].round(6).item()
    0.5
    """
    x, _ = check_inputs(jnp.asarray(x), None, net.vocabulary_size, False)
    net.output_shape(x.shape[1:])
    stages = list(unrolled(net))
    after = _needs(stages)
    state: Any = Inputs(x, x, overlap=len(x), carry=after[0])
    tokens = net.vocabulary_size is not None
    found = [] if tokens else [_summary(moments(state))]
    for layer in stages:
        if isinstance(state, Inputs):
            state = layer.propagate(state)
        else:
            state = _propagated(layer, _Carried(state)).state
        # What only reshapes the data leaves them data.
        found.append(_summary(moments(state)))
    if tokens:
        # Tokens have no moments: those after the embedding stand for them.
        found.insert(0, tuple(np.full_like(a, np.nan) for a in found[0]))
    return Signal(layer_names(stages), *(np.stack(a) for a in zip(*found, strict=True)))


def measure_signal(net: Module, x: Any, key: jax.Array, *, seeds: int = 16) -> MeasuredSignal:
    """The same moments of finite networks, over random initial parameters.

    Parameters
    ----------
    net, x
        As for :func:`signal_propagation`; at its own widths.
    key, seeds
        Randomness, and the number of networks, at least two.

    Returns
    -------
    MeasuredSignal
        Means, which differ from the prediction by ``O(depth / width)``, and standard errors.

    Examples
    --------
    >>> import jax, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Erf(), ntk.nn.Dense(1))
    >>> x = ntk.theory.signal_inputs((4,), 1.0, 0.5)
    >>> ntk.theory.measure_signal(net, x, jax.random.key(0)).covariance.shape
    (4, 2, 2)
    """
    if seeds < 2:
        raise InputError(f"seeds={seeds}; a standard error takes at least two networks.")
    x, _ = check_inputs(jnp.asarray(x), None, net.vocabulary_size, False)
    keys = jax.random.split(key, seeds)
    params = jax.vmap(lambda key: net.init(key, x.shape[1:]))(keys)
    h = jnp.broadcast_to(x, (seeds, *x.shape))
    tokens = net.vocabulary_size is not None
    products = [np.full((seeds, len(x), len(x)), np.nan) if tokens else _products(h)]
    for layer, p in with_params(net, params):
        h = jax.vmap(layer.apply)(p, h)
        products.append(_products(h))
    found = np.stack(products, axis=1)
    error = found.std(0, ddof=1) / seeds**0.5
    return MeasuredSignal(layer_names(list(unrolled(net))), found.mean(0), error, seeds)


def signal_inputs(shape: tuple[int, ...], variance: float, correlation: float) -> jax.Array:
    """Two inputs of a given mean square and correlation, alike at every position: ``(2, *shape)``.

    ``shape`` is that of one example; it must have at least two channels, unless ``correlation`` is
    one or minus one. In JAX's default dtype.
    """
    if not shape or not variance > 0 or not -1 <= correlation <= 1:
        raise InputError(
            f"shape={shape}, variance={variance}, correlation={correlation}; give the shape of an "
            "example, a positive variance and a correlation from -1 to 1."
        )
    channels = shape[-1]
    if channels < 2 and abs(correlation) < 1:
        raise InputError("one channel has correlations of one and minus one only.")
    first = np.ones(channels)
    other = np.where(np.arange(channels) % 2 == 0, 1.0, -1.0)
    other -= other.mean()
    other *= (channels / max((other**2).sum(), 1e-300)) ** 0.5
    second = correlation * first + (1 - correlation**2) ** 0.5 * other
    rows = variance**0.5 * np.stack([first, second]).reshape(2, *(1,) * (len(shape) - 1), channels)
    return jnp.asarray(np.broadcast_to(rows, (2, *shape)), jnp.result_type(float))


def _needs(stages: list[Module]) -> list[Carry]:
    """What must be carried so that equal positions can be told at every layer."""
    # Variances too, which the kernel of the last layer alone would do without.
    need = Need(Carry.DIAGONAL, variances=True, ragged=False)
    found = [need.carry]
    for layer in reversed(stages):
        need = layer.need(need)
        found.append(need.carry)
    return found[::-1]


def _summary(state: Features) -> tuple[np.ndarray, ...]:
    layout = state.layout
    if isinstance(layout, Vector):
        return tuple(np.asarray(a) for a in (state.cov.cov, distance_of(state.cov), state.ntk))
    both = [_over_positions(a, layout) for a in (state.cov.cov, state.ntk)]
    cov, ntk = (np.asarray(a) for a in both)
    root = np.sqrt(np.diagonal(cov))
    norm = np.outer(root, root)
    distance = np.where(norm > 0, 1 - cov / np.where(norm > 0, norm, 1), 0)
    return cov, distance, ntk


def _over_positions(values: jax.Array, layout: Any) -> jax.Array:
    """Mean over equal positions as a matrix, ``(n, n)``."""
    axes = tuple(range(len(layout.shape)))
    if isinstance(layout, Full):
        return layout.pairs.matrix(diagonal_of(values, len(axes)).mean(axes))
    return values.mean(axes)


class _Carried:
    """A state as a pytree: its arrays are leaves, all else is static."""

    def __init__(self, state: Features):
        self.state = state


def _flatten(carried: _Carried) -> tuple[tuple, tuple]:
    state, layout = carried.state, carried.state.layout
    own = layout.own if isinstance(layout, Full) else None
    bare = replace(layout, own=None) if isinstance(layout, Full) else layout
    return (state.cov, state.ntk, state.same, own), (type(state), state.channels, bare)


def _unflatten(static: tuple, arrays: Any) -> _Carried:
    kind, channels, layout = static
    cov, ntk, same, own = arrays
    layout = replace(layout, own=own) if isinstance(layout, Full) else layout
    return _Carried(kind(cov, ntk, channels, layout, same))


jax.tree_util.register_pytree_node(_Carried, _flatten, _unflatten)


@compiled(static_argnums=0)
def _propagated(layer: Module, carried: _Carried) -> _Carried:
    return _Carried(layer.propagate(carried.state))  # type: ignore[arg-type]


def _products(h: jax.Array) -> np.ndarray:
    flat = np.asarray(h, float).reshape(*h.shape[:2], -1)
    return flat @ flat.transpose(0, 2, 1) / flat.shape[-1]
