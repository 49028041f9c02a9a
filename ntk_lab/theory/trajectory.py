"""Length of a curve of inputs as layers stretch and fold it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError
from ntk_lab.nn import Sequential


def trajectory_lengths(net: Sequential, params: Any, points: ArrayLike) -> np.ndarray:
    """Length of a polyline of inputs after each layer, per root of the layer's width.

    ``sum_i |h_l(x_i+1) - h_l(x_i)| / sqrt(n_l)``: in this unit, a fully connected layer without
    bias multiplies lengths by ``w_std`` on average, whatever its width.

    Parameters
    ----------
    net, params
        A ``Sequential`` of vectors and its parameters.
    points
        Inputs along the curve, ``(m, d)``, at least two.

    Returns
    -------
    np.ndarray
        ``(layers + 1,)``, the first that of the inputs.

    Raises
    ------
    InputError
        Points that are not a list of vectors.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Relu())
    >>> ntk.theory.trajectory_lengths(net, ((),), jnp.array([[-1.0], [1.0]]))
    array([2., 1.])
    """
    values, found = _read(points), []
    for layer, own in zip((None, *net.layers), (None, *params), strict=True):
        values = values if layer is None else layer.apply(own, values)
        steps = np.diff(np.asarray(values, np.float64), axis=0)
        found.append(np.sqrt((steps**2).mean(axis=1)).sum())
    return np.array(found)


def expected_trajectory_lengths(net: Sequential, points: ArrayLike) -> np.ndarray:
    """The same for infinitely wide layers at initialization.

    Squared distances are averages over the neurons of a layer and so do not fluctuate::

        |h(x) - h(x')|^2 / n  ->  K(x, x) + K(x', x') - 2 K(x, x')

    with ``K`` the NNGP of the layers so far, of any architecture. For a fine curve and ``Dense``
    layers it grows by ``sqrt(chi)`` a layer, ``chi = w_std^2 E[phi'^2]`` (arXiv:1606.05336 has
    bounds at finite width): exactly ``sqrt(w_std^2 / 2)`` for Relu, so that lengths grow without
    bound in the chaotic phase ``chi > 1`` only.

    Parameters
    ----------
    net
        A ``Sequential`` of vectors that begins with a layer with weights.
    points
        As for :func:`trajectory_lengths`.

    Returns
    -------
    np.ndarray
        ``(layers + 1,)``.

    Raises
    ------
    InputError
        As there.

    Notes
    -----
    Evaluated in float64, as neighbours on a curve are nearly equal. Networks of finite width have
    lengths lower by a part of order 1/width in each layer: a root of a mean is at least the mean
    of the root.

    Examples
    --------
    >>> import numpy as np, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(1, 3.0), ntk.nn.Relu(), ntk.nn.Dense(1, 3.0))
    >>> angle = np.linspace(0, 1, 50)
    >>> arc = np.stack([np.cos(angle), np.sin(angle)], 1)
    >>> print(ntk.theory.expected_trajectory_lengths(net, arc).round(2))
    [0.71 2.12 1.5  4.49]
    """
    with jax.enable_x64(True):
        x = np.asarray(_read(points), np.float64)
        found = [np.sqrt((np.diff(x, axis=0) ** 2).mean(axis=1)).sum()]
        inputs = jnp.asarray(x)
        for count in range(1, len(net.layers) + 1):
            k = np.asarray(_kernel(Sequential(*net.layers[:count]), inputs).nngp)
            diagonal = k.diagonal()
            square = diagonal[1:] + diagonal[:-1] - 2 * k.diagonal(1)
            found.append(np.sqrt(np.maximum(square, 0)).sum())
    return np.array(found)


# Compiled as a whole: `enable_x64` holds in this thread only, not in those of compiled loops.
@compiled(static_argnums=0)
def _kernel(net: Sequential, x: jax.Array) -> Any:
    return net.kernel(x)


def _read(points: ArrayLike) -> Any:
    if np.ndim(points) != 2 or np.shape(points)[0] < 2:
        raise InputError(f"points have shape {np.shape(points)}; expected (m, d), at least two.")
    return points if isinstance(points, jax.Array) else np.asarray(points)
