"""The neural feature ansatz: weights of trained networks against average gradient products."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.empirical import average_gradient_outer_product
from ntk_lab.errors import InputError
from ntk_lab.nn import Dense, Sequential


class LayerFeatures(NamedTuple):
    """What one dense layer looks at.

    Attributes
    ----------
    layer
        Its number in the network.
    weights
        ``W W^T``, its neural feature matrix, ``(fan_in, fan_in)``.
    gradients
        Average gradient outer product of the network in the input of the layer.
    correlation
        ``<W W^T, G> / (|W W^T| |G|)``; 1 if they are proportional.
    """

    layer: int
    weights: np.ndarray
    gradients: np.ndarray
    correlation: float


def feature_ansatz(net: Sequential, params: Any, x: jax.Array) -> tuple[LayerFeatures, ...]:
    """Compare what each dense layer's weights and the network's gradients single out.

    The neural feature ansatz of arXiv:2212.13881 says that in a trained network the feature matrix
    ``W W^T`` of a layer (``y = x W``) is proportional to the average gradient outer product ``G``
    in that layer's input. It holds where training from a small start has made the weights, and not
    at initialization, where ``W W^T`` of a wide layer is near a multiple of the identity.

    Parameters
    ----------
    net, params
        A ``Sequential`` of vectors and its parameters.
    x
        Inputs ``(n, *shape)`` over which gradients are averaged.

    Returns
    -------
    tuple of LayerFeatures
        One for each ``Dense`` of ``net.layers`` but the last, the readout.

    Raises
    ------
    InputError
        No dense layer before the readout.

    Notes
    -----
    Cost for each layer: that of `average_gradient_outer_product` of the layers from it on.

    Examples
    --------
    >>> import jax, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> x = jax.random.normal(jax.random.key(0), (20, 4))
    >>> [found] = ntk.theory.feature_ansatz(net, net.init(jax.random.key(1), (4,)), x)
    >>> found.weights.shape, found.gradients.shape
    ((4, 4), (4, 4))
    """
    places = [i for i, layer in enumerate(net.layers) if isinstance(layer, Dense)][:-1]
    if not places:
        raise InputError("the network has no Dense layer before its readout; nothing to compare.")
    found = []
    for i in places:
        head, tail = Sequential(*net.layers[:i]), Sequential(*net.layers[i:])
        features = head.apply(params[:i], x) if i else jnp.asarray(x)
        if features.ndim != 2:
            raise InputError(
                f"layer {i} is applied to shape {features.shape[1:]}; expected vectors: put a "
                "Flatten in front."
            )
        gradients = np.asarray(average_gradient_outer_product(tail.apply, params[i:], features))
        w = np.asarray(params[i]["w"], np.float64)
        weights = w @ w.T
        found.append(LayerFeatures(i, weights, gradients, _cosine(weights, gradients)))
    return tuple(found)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))
