"""The law of robustness: how steep a model of a given size must be to fit noisy labels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntk_lab import nn
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.theory.kernel_function import kernel_function
from ntk_lab.theory.lipschitz import lipschitz_lower_bound


def robustness_law(
    examples: ArrayLike,
    dimension: ArrayLike,
    parameters: ArrayLike,
    *,
    excess: ArrayLike = 1.0,
    isoperimetry: float = 1.0,
) -> np.ndarray:
    """``excess sqrt(n d / (c p))``: how large the Lipschitz constant of a small model must be.

    Bubeck and Sellke (arXiv:2105.12806, theorem 3): with probability ``1 - delta``, all models of
    the class whose mean squared training error is below the labels' noise by ``excess`` have::

        Lip(f) >= excess / (2^9 sqrt(c)) sqrt(n d / (p log(60 W J / excess) + log(4 / delta)))

    with ``W`` the diameter of the set of parameters and ``J`` the Lipschitz constant of the model
    in its parameters. This function is without the ``2^9`` and the logarithms: it says how the
    bound scales, not what it is. Interpolation takes ``p >= n``, smooth interpolation
    ``p >= n d``.

    Parameters
    ----------
    examples, dimension, parameters
        ``n``, ``d`` and ``p``; numbers or arrays that broadcast.
    excess
        How far the mean squared training error is below the noise level, which is the mean
        conditional variance of the labels; all of it, for models that interpolate.
    isoperimetry
        The ``c`` of the inputs: ``P(|f - E f| >= t) <= 2 exp(-d t^2 / (2 c L^2))`` for every
        ``L``-Lipschitz ``f``. It is 1 for Gaussian inputs of covariance ``1/d`` (norm 1), and
        of order 1 for the unit sphere.

    Returns
    -------
    numpy.ndarray
        In float64, in units of outputs over norms of inputs.

    Raises
    ------
    InputError
        Numbers that are not positive (``excess`` may be 0).

    Notes
    -----
    Assumptions: examples are independent, their inputs from a mixture of few distributions of that
    isoperimetry; labels are in ``[-1, 1]``; the class was chosen before the data were seen. Whether
    some model is as flat as the law allows is another matter: for two layers it is conjectured,
    and shown in part, in arXiv:2009.14444.

    Examples
    --------
    >>> import ntk_lab as ntk
    >>> print(ntk.theory.robustness_law(100, 25, [100, 2500]))
    [5. 1.]
    """
    numbers = [np.asarray(v, np.float64) for v in (examples, dimension, parameters, isoperimetry)]
    if not all((v > 0).all() and np.isfinite(v).all() for v in numbers):
        raise InputError("examples, dimension, parameters and isoperimetry must be positive.")
    below = np.asarray(excess, np.float64)
    if not (below >= 0).all():
        raise InputError(f"excess={excess}; it must not be negative.")
    n, d, p, c = numbers
    return below * np.sqrt(n * d / (c * p))


class Sensitivity(NamedTuple):
    """How steep interpolating models of each size are.

    Attributes
    ----------
    parameters
        Number of fitted parameters of each model, shape ``(sizes,)``.
    largest
        Lipschitz lower bound in units of outputs over typical inputs: the largest gradient that
        was met, times the root mean square norm of the inputs, shape ``(seeds, sizes)``.
    typical
        The same with the root mean square gradient at the probes.
    residual
        Largest training error, shape ``(seeds, sizes)``: zero to rounding, as models interpolate.
    """

    parameters: np.ndarray
    largest: np.ndarray
    typical: np.ndarray
    residual: np.ndarray


def sensitivity_of_size(
    net: nn.Sequential,
    x: ArrayLike,
    y: ArrayLike,
    probes: ArrayLike,
    widths: Sequence[int],
    *,
    seeds: int,
    key: jax.Array,
    radius: float = 0.0,
) -> Sensitivity:
    """Measured steepness of networks whose last layer alone interpolates, against its size.

    Hidden layers stay as they are drawn (random features); the readout is the one of least norm
    that fits the labels, which gradient descent from zero finds. So ``p`` is the width.

    Parameters
    ----------
    net
        A ``Sequential`` that ends in ``Dense(1)`` without bias, in NTK parameterization.
    x, y
        Training inputs ``(n, *shape)`` and labels ``(n, 1)``.
    probes
        Where gradients are looked at, ``(m, *shape)``; ascents start there.
    widths
        Of the hidden layers; all above ``n + 1``.
    seeds, key
        How many networks of each width, and the key they are drawn from.
    radius
        Of the ascent, as a share of the root mean square norm of the inputs; 0 looks at the
        probes alone. See :func:`lipschitz_lower_bound`.

    Returns
    -------
    Sensitivity
        In float64.

    Raises
    ------
    InputError
        Another last layer, a width that cannot interpolate, labels that do not fit.
    NumericalError
        A model that does not interpolate: its features are not of full rank to rounding.

    Notes
    -----
    Solved in float64 on the host: ``O(n^2 p)`` operations a model. Each width is compiled once.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> x = jax.random.normal(jax.random.key(0), (20, 8))
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(1), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> found = ntk.theory.sensitivity_of_size(
    ...     net, x, jnp.sign(x[:, :1]), x, (40, 640), seeds=2, key=jax.random.key(1)
    ... )
    >>> bool((found.typical[:, 0] > found.typical[:, 1]).all())
    True
    """
    x, probes, labels = jnp.asarray(x), jnp.asarray(probes), np.asarray(y, np.float64)
    _check(net, x, labels, widths)
    norm, rows = _typical_norm(x), []
    for seed in range(seeds):
        for width in widths:
            model = net.with_width(width)
            params = model.init(jax.random.fold_in(key, seed), x.shape[1:], x.dtype)
            params, residual = _interpolate(model, params, x, labels)
            found = lipschitz_lower_bound(
                model.apply, params, probes, radius=radius * norm, steps=8
            )
            typical = float(jnp.sqrt(jnp.mean(found.at_data**2)))
            rows.append((norm * found.value, norm * typical, residual))
    table = np.asarray(rows).reshape(seeds, len(widths), 3)
    return Sensitivity(np.asarray(widths), *np.moveaxis(table, -1, 0))


def predicted_sensitivity(
    net: nn.Sequential,
    x: ArrayLike,
    y: ArrayLike,
    probes: ArrayLike,
    widths: Sequence[int],
    *,
    key: jax.Array,
    draws: int = 16,
) -> np.ndarray:
    """Theory of ``typical`` in :func:`sensitivity_of_size`, for two-layer networks.

    With ``K`` the NNGP on the data and ``f_K = k(., X) K^-1 y``, at the probes::

        mean |grad f_p|^2 = mean |grad f_K|^2 + (y^T K^-1 y) mean E |grad z|^2 / (p - n - 1)

    with ``z`` the Gaussian process of that kernel, given that it is zero on the data. It is exact
    if features are jointly Gaussian: those at a probe are then those that the data explain, which
    give ``f_K``, and an independent rest, which meets a readout of mean squared norm
    ``y^T K^-1 y p / (p - n - 1)``, an inverse Wishart matrix (arXiv:2002.08404 has what is true of
    other features). As ``y^T K^-1 y`` is of order ``n``, and ``|x|^2 E |grad z|^2`` of order ``d``
    times the variance of one random output, the second term is the ``n d / p`` of the law of
    robustness; the first is what it costs to fit the labels at any size.

    Parameters
    ----------
    net, x, y, probes, widths
        As for :func:`sensitivity_of_size`; one hidden layer.
    key, draws
        ``E |grad z|^2`` is a mean over so many networks of the largest width in place of ``z``.

    Returns
    -------
    numpy.ndarray
        In units of outputs over typical inputs, shape ``(sizes,)``, float64.

    Raises
    ------
    InputError
        As :func:`sensitivity_of_size`; more than one hidden layer.
    """
    x, probes, labels = jnp.asarray(x), jnp.asarray(probes), np.asarray(y, np.float64)
    _check(net, x, labels, widths)
    if sum(layer.has_width() for layer in net.layers) != 2:
        raise InputError("the prediction is for networks of two layers with weights.")
    gram = np.asarray(net.kernel(x).nngp, np.float64)
    alpha = np.linalg.solve(gram, labels)
    mean, wide = kernel_function(net, x), net.with_width(max(widths))

    def rest(parts: tuple[Any, jax.Array], z: jax.Array) -> jax.Array:
        return wide.apply(parts[0], z) - mean(parts[1], z)

    squares = []
    for i in range(draws):
        params = wide.init(jax.random.fold_in(key, i), x.shape[1:], x.dtype)
        explained = np.linalg.solve(gram, np.asarray(wide.apply(params, x), np.float64))
        squares.append(_mean_square(rest, (params, jnp.asarray(explained, x.dtype)), probes))
    limit = _mean_square(mean, jnp.asarray(alpha, x.dtype), probes)
    extra = float((alpha * labels).sum() * np.mean(squares)) / (np.asarray(widths) - len(x) - 1)
    return _typical_norm(x) * np.sqrt(limit + extra)


def _mean_square(f: Any, params: Any, probes: jax.Array) -> float:
    return float(jnp.mean(lipschitz_lower_bound(f, params, probes).at_data ** 2))


def _typical_norm(x: jax.Array) -> float:
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    return float(np.sqrt((flat**2).sum() / len(flat)))


def _check(net: nn.Sequential, x: jax.Array, labels: np.ndarray, widths: Sequence[int]) -> None:
    last = net.layers[-1] if isinstance(net, nn.Sequential) and net.layers else None
    if not isinstance(last, nn.Dense) or (last.width, last.b_std, last.parameterization) != (
        1, None, "ntk",
    ):  # fmt: skip
        raise InputError(
            f"the last layer is {last!r}; expected a Sequential network that ends in Dense(1) "
            "without bias, in NTK parameterization."
        )
    if labels.shape != (len(x), 1):
        raise InputError(f"labels have shape {labels.shape}; expected ({len(x)}, 1).")
    if not widths or min(widths) <= len(x) + 1:
        raise InputError(
            f"widths are {tuple(widths)}; expected some, all above {len(x) + 1}, the examples + 1."
        )


def _interpolate(
    model: nn.Sequential, params: Any, x: jax.Array, labels: np.ndarray
) -> tuple[Any, float]:
    """Parameters with the readout of least norm that fits the labels, and the largest error."""
    features = np.asarray(nn.Sequential(*model.layers[:-1]).apply(params[:-1], x), np.float64)
    one = jnp.ones((1, 1), x.dtype)
    scale = float(model.layers[-1].apply({"w": one}, one)[0, 0])
    scale /= features.shape[1] ** 0.5
    gram = features @ features.T
    try:
        weights = features.T @ np.linalg.solve(gram, labels)
    except np.linalg.LinAlgError as error:
        raise NumericalError("features of the examples are linearly dependent.") from error
    readout = {"w": jnp.asarray(weights / scale, x.dtype)}
    fitted = (*params[:-1], readout)
    residual = float(np.abs(features @ weights - labels).max())
    if residual > 1e-3 * np.abs(labels).max():
        raise NumericalError(
            f"the model misses a label by {residual:.2g}: the features of these examples are "
            "nearly linearly dependent. Leave out duplicates, or take more features than that."
        )
    return fitted, residual
