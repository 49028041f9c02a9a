"""How fast a network can change at most: products of the Lipschitz constants of its layers."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab import nn
from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError
from ntk_lab.nn.two_slopes import TwoSlopes


class LipschitzUpperBound(NamedTuple):
    """A product of layers' Lipschitz constants.

    Attributes
    ----------
    value
        The bound, in Euclidean norms over all axes of an example.
    layers
        ``(name, constant)`` of each layer; their product is ``value``.
    margin
        The largest uncertainty among the convolutions, relative to their norm: it is between
        ``constant / (1 + margin)`` and ``constant``. 0 without any.
    """

    value: float
    layers: tuple[tuple[str, float], ...]
    margin: float


# Chance that the start of a power iteration is too far from the leading singular vector.
_IMPROBABLE = 1e-6
# Largest |derivative|. Gelu: at sqrt(2), Phi + x phi. Silu: at 2.39936, rounded upwards.
_GELU = (1 + math.erf(1)) / 2 + math.sqrt(2) * math.exp(-1) / math.sqrt(2 * math.pi)
_CONSTANTS = {
    nn.Identity: 1.0,
    nn.Flatten: 1.0,
    nn.Relu: 1.0,
    nn.Tanh: 1.0,
    nn.Softplus: 1.0,
    nn.Sigmoid: 0.25,
    nn.SigmoidLike: 1 / (2.4020563531719796 * math.sqrt(math.pi)),
    nn.Gelu: _GELU,
    nn.Silu: 1.0998394,
    nn.Selu: 1.0507009873554805 * 1.6732632423543772,
}


def lipschitz_upper_bound(
    net: nn.Module, params: Any, shape: tuple[int, ...], *, steps: int = 200
) -> LipschitzUpperBound:
    """``Lip(f) <= prod_l Lip(layer l)``, in Euclidean norms over all axes of an example.

    ``Dense``: the largest singular value of its weights, exactly. Pooling: the product of the
    singular values along each axis. Activations: their steepest slope. ``Conv``: the norm of the
    linear map ``A`` between images of ``N`` numbers that it is, padding and strides included, by
    power iteration on ``M = A^T A`` from a random unit vector ``v``. As
    ``|M^k v| >= |A|^(2k) |v . u|``, with ``u`` the leading singular vector::

        |A| <= (|M^k v| sqrt(N) / delta)^(1 / 2k)

    unless ``|v . u| < delta / sqrt(N)``, which has probability below ``delta = 1e-6``. A Rayleigh
    quotient bounds the norm from below; a small residual alone would prove nothing, since
    convolutions have many singular values near the largest.

    Parameters
    ----------
    net, params
        A ``Sequential`` (of ``Sequential``, too), or one layer, and its parameters.
    shape
        Of one example.
    steps
        Power iterations of each convolution, the ``k`` above.

    Raises
    ------
    InputError
        A layer whose constant is not known here, or none exists.

    Notes
    -----
    Networks of linear layers meet the product only if singular vectors of adjacent layers align:
    it overestimates by a factor that grows exponentially with depth. All is exact to rounding but
    convolutions, whose bound is above the norm by about ``log(sqrt(N) / delta) / (2 steps)``, some
    4%. Dense layers cost a singular value decomposition in float64. Spectral norms of
    convolutions: arXiv:1805.10408.

    Examples
    --------
    >>> import jax, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> params = net.init(jax.random.key(0), (16,))
    >>> bound = ntk.theory.lipschitz_upper_bound(net, params, (16,))
    >>> [name for name, _ in bound.layers]
    ['Dense', 'Relu', 'Dense']
    >>> x = jax.random.normal(jax.random.key(1), (20, 16))
    >>> ntk.theory.lipschitz_lower_bound(net.apply, params, x).value < bound.value
    True
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps={steps!r}; expected a whole number, at least 1.")
    layers, margins = [], [0.0]
    for layer, own, before in _flat(net, params, tuple(shape)):
        if isinstance(layer, nn.Conv):
            constant, margin = _convolution(layer, own, before, steps)
            margins.append(margin)
        else:
            constant = lipschitz_constant(layer, own, before)
        layers.append((type(layer).__name__, constant))
    value = math.prod(constant for _, constant in layers)
    return LipschitzUpperBound(value, tuple(layers), max(margins))


def lipschitz_constant(layer: nn.Module, params: Any = (), shape: tuple[int, ...] = ()) -> float:
    """Lipschitz constant of a dense layer, of pooling or of an activation, exactly.

    ``shape`` is that of one example before the layer. Raises InputError for any other layer.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> ntk.theory.lipschitz_constant(ntk.nn.LeakyRelu(0.1))
    1.0
    """
    if isinstance(layer, nn.Dense):
        weights = params["w"]
        map_ = layer.apply({"w": weights}, jnp.eye(weights.shape[0], dtype=weights.dtype))
        return float(np.linalg.norm(np.asarray(map_, np.float64), 2))
    if isinstance(layer, nn.GlobalAvgPool | nn.GlobalSumPool):
        size = math.prod(shape[:-1])
        return float(size**0.5 if isinstance(layer, nn.GlobalSumPool) else size**-0.5)
    if isinstance(layer, nn.AvgPool | nn.SumPool):
        return math.prod(float(np.linalg.norm(m, 2)) for m in layer._matrices(shape[:-1]))
    if isinstance(layer, TwoSlopes):
        return max(abs(float(slope)) for slope in layer.slopes())
    if isinstance(layer, nn.Erf):
        return abs(float(layer.a * layer.b)) * 2 / math.pi**0.5
    if isinstance(layer, nn.Sin | nn.Cos):
        return abs(float(layer.a * layer.b))
    if isinstance(layer, nn.Elu):
        return max(1.0, abs(float(layer.alpha)))
    if isinstance(layer, nn.Scale):
        return abs(float(layer.alpha))
    if type(layer) in _CONSTANTS:
        return _CONSTANTS[type(layer)]
    raise InputError(
        f"no Lipschitz constant of {type(layer).__name__} is known here. Upper bounds are for "
        "Sequential networks of Dense, Conv, average and sum pooling, Flatten, Scale and "
        f"{', '.join(sorted(c.__name__ for c in _CONSTANTS))}, LeakyRelu, ABRelu, Abs, Erf, Sin, "
        "Cos or Elu; lipschitz_lower_bound takes any function."
    )


def _flat(
    net: nn.Module, params: Any, shape: tuple[int, ...]
) -> list[tuple[nn.Module, Any, tuple[int, ...]]]:
    """Every layer, its parameters, and the shape of an example before it."""
    if not isinstance(net, nn.Sequential):
        net.output_shape(shape)
        return [(net, params, shape)]
    if len(params) != len(net.layers):
        raise InputError(f"got parameters of {len(params)} layers for {len(net.layers)} layers.")
    found = []
    for layer, own in zip(net.layers, params, strict=True):
        found += _flat(layer, own, shape)
        shape = layer.output_shape(shape)
    return found


def _convolution(
    layer: nn.Conv, params: Any, shape: tuple[int, ...], steps: int
) -> tuple[float, float]:
    """Upper bound on the spectral norm, and by how much it may be too large."""
    weights = params["w"]
    v = jax.random.normal(jax.random.key(0), (1, *shape), weights.dtype)
    v, growth, rayleigh = v / jnp.linalg.norm(v), 0.0, 0.0
    for _ in range(steps):
        v, ratio, squared = _power_step(layer, weights, v)
        if not float(ratio) > 0:
            return 0.0, 0.0
        growth, rayleigh = growth + math.log(float(ratio)), max(rayleigh, float(squared))
    growth += math.log(v.size**0.5 / _IMPROBABLE)
    bound = math.exp(growth / (2 * steps))
    return bound, bound / rayleigh**0.5 - 1


@compiled(static_argnames="layer")
def _power_step(
    layer: nn.Conv, weights: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Next unit vector, ``|A^T A v|`` and ``|A v|^2``."""
    image, back = jax.vjp(lambda v: layer.apply({"w": weights}, v), v)
    (product,) = back(image)
    size = jnp.linalg.norm(product)
    return product / jnp.where(size > 0, size, 1), size, jnp.sum(image**2)
