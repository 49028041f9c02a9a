"""Depth against width: exact moments of outputs and NTK of finite Relu networks at one input."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError
from ntk_lab.kernel.native_steps import TwoSlopes
from ntk_lab.nn import Dense, Flatten, Identity
from ntk_lab.nn.module import Module
from ntk_lab.theory.layers import unrolled

_LINEAR = 1.0, 1.0


@dataclass(frozen=True)
class FiniteWidthMoments:
    """Moments over initial parameters of an output ``f`` and of its NTK ``K`` at one input.

    All but ``layers`` are float64 arrays ``(n,)``, one entry an input.

    Attributes
    ----------
    layers
        Number ``L`` of layers with weights; ``f`` is homogeneous of that degree in them.
    output_square, output_fourth
        ``E[f^2]`` and ``E[f^4]``.
    ntk, ntk_square
        ``E[K]``, which no width changes, and ``E[K^2]``.
    ntk_output_square
        ``E[K f^2]``.
    kinked
        Whether an activation has a kink.
    """

    layers: int
    output_square: np.ndarray
    output_fourth: np.ndarray
    ntk: np.ndarray
    ntk_square: np.ndarray
    ntk_output_square: np.ndarray
    kinked: bool

    @property
    def output_kurtosis(self) -> np.ndarray:
        """``E[f^4] / E[f^2]^2``; 3 in the infinitely wide limit."""
        return self.output_fourth / self.output_square**2

    @property
    def ntk_ratio(self) -> np.ndarray:
        """``E[K^2] / E[K]^2``: one in the limit, of order ``exp(5 sum 1/n_l)`` for Relu."""
        return self.ntk_square / self.ntk**2

    @property
    def ntk_relative_std(self) -> np.ndarray:
        """Standard deviation of ``K`` over its mean."""
        return np.sqrt(np.maximum(self.ntk_ratio - 1, 0))

    @property
    def ntk_velocity(self) -> np.ndarray:
        """``E[dK/dt]`` at the start of gradient flow on this example with a target of zero.

        Exactly ``E[K^2] - L E[K f^2]``, of linear networks. It is ``-f <grad f, grad K>``,
        half of ``-<grad f^2, grad K>``; integrating by parts over standard normal parameters leaves
        ``-E[K (L f^2 - |grad f|^2 - f laplacian f)]``, as ``f^2`` is homogeneous of degree ``2 L``
        and ``f`` linear in each weight. Raises InputError for activations with a kink: see
        :func:`switching_change`.
        """
        if self.kinked:
            raise InputError(
                "how the mean kernel of networks with kinks moves is not that of their smooth "
                "pieces: neurons that switch off add a larger term, of order width^-1/2. For one "
                "hidden layer ntk.theory.switching_change has it."
            )
        return self.ntk_square - self.layers * self.ntk_output_square

    def ntk_change(self, time: Any, target: float = 0.0) -> np.ndarray:
        """``E[K(t) - K(0)]`` after training on this example alone, to order ``1/width``.

        With ``u = 1 - exp(-E[K] t)``, ``q = E[f^2]`` and ``v`` the :attr:`ntk_velocity`::

            v (u / E[K] - L (q + y^2) u^2 / (2 E[K]^2))

        The third and fourth derivatives along ``f`` are taken at the start, their higher orders
        being smaller by ``1/width`` (arXiv:1909.08156); their means are ``-v`` times one and
        ``L``, by parts as above. As ``E[K] = L q``, the kernel has in the end grown where
        ``y^2 > q`` and shrunk below. Time is learning rate times steps; the loss is
        ``(f - y)^2 / 2``. Linear networks only, as :attr:`ntk_velocity`.

        Parameters
        ----------
        time
            Times ``(k,)``, or a number.
        target
            ``y``.

        Returns
        -------
        array ``(k, n)``, or ``(n,)`` for a number.
        """
        velocity = self.ntk_velocity
        u = -np.expm1(-np.multiply.outer(np.asarray(time, float), self.ntk))
        second = self.layers * (self.output_square + target**2) * u**2 / (2 * self.ntk**2)
        return velocity * (u / self.ntk - second)


@dataclass(frozen=True)
class MeasuredMoments:
    """Outputs and NTK of random networks, ``(seeds, n)`` each, and moments with standard errors."""

    outputs: np.ndarray
    ntk: np.ndarray

    def mean(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean over networks and standard error, ``(n,)``, of a moment of `FiniteWidthMoments`."""
        f, k = self.outputs, self.ntk
        kinds = {
            "output_square": f**2,
            "output_fourth": f**4,
            "ntk": k,
            "ntk_square": k**2,
            "ntk_output_square": k * f**2,
        }
        if name not in kinds:
            raise InputError(f"moment {name!r} is unknown; choose one of {', '.join(kinds)}.")
        values = kinds[name]
        return values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5

    @property
    def ntk_ratio(self) -> tuple[np.ndarray, np.ndarray]:
        """``E[K^2] / E[K]^2`` and its standard error, by the delta method."""
        k = self.ntk / self.ntk.mean(0)
        ratio = (k**2).mean(0)
        return ratio, (k**2 - 2 * ratio * k).std(0, ddof=1) / len(k) ** 0.5


def finite_width_moments(net: Module, x: Any) -> FiniteWidthMoments:
    """Exact moments of a finite network at initialization, for every width and depth.

    Parameters
    ----------
    net
        ``Dense`` layers without biases in NTK parameterization, activations that are linear on
        either side of zero between them (Relu, LeakyRelu, Abs, or none), and one output.
    x
        Inputs ``(n, *shape)``.

    Returns
    -------
    FiniteWidthMoments
        In float64.

    Raises
    ------
    InputError
        Another architecture.

    Notes
    -----
    At one input the sign of each pre-activation is independent of all squares, so that moments of
    second order in ``(z^2, K)`` close: for Relu ``E|z|^4`` grows by ``1 + 5/n`` a layer, and those
    of ``K`` by sums of such products. arXiv:1909.05989 proves ``E[K^2] / E[K]^2`` to be of order
    ``exp(5 sum 1/n_l)``; here it is exact. See also arXiv:2106.10165, chapters 5 and 9. Cost:
    none.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> block = ntk.nn.Sequential(ntk.nn.Relu(), ntk.nn.Dense(20, 2**0.5))
    >>> ends = ntk.nn.Dense(20, 2**0.5), ntk.nn.Dense(1, 2**0.5)
    >>> net = ntk.nn.Sequential(ends[0], ntk.nn.Repeat(block, 9), ntk.nn.Relu(), ends[1])
    >>> float(ntk.theory.finite_width_moments(net, jnp.ones((1, 5))).ntk_ratio[0]) > 3
    True
    """
    x = np.asarray(x, float)
    if x.ndim < 2 or not len(x):
        raise InputError(f"x has shape {x.shape}; give inputs (n, *shape).")
    layers = read_layers(net)
    square = (x.reshape(len(x), -1) ** 2).mean(1)
    first = layers[0][0].w_std ** 2 * square
    # Of one channel or two (z1, z2): fourth moments, those with K11 and K12, and those of K.
    z = {"1111": 3 * first**2, "1122": first**2}
    kz = {"1111": first**2, "1122": first**2, "1212": 0 * first}
    kk = {"1111": first**2, "1122": first**2, "1212": 0 * first}
    q, k = first, first
    for (layer, (low, high)), (before, _) in zip(layers[1:], layers[:-1], strict=True):
        scale, n = layer.w_std**2, before.width
        second, fourth = (low**2 + high**2) / 2, (low**4 + high**4) / 2

        def passed(same, apart, scale=scale, n=n, second=second, fourth=fourth):
            return (scale / n) ** 2 * (n * fourth * same + n * (n - 1) * second**2 * apart)

        squares = passed(z["1111"], z["1122"])
        own, cross = passed(kz["1111"], kz["1122"]), passed(kz["1111"], kz["1212"])
        pairs, crossed = passed(kk["1111"], kk["1122"]), passed(kk["1111"], kk["1212"])
        z = {"1111": 3 * squares, "1122": squares}
        kz = {"1111": squares + own + 2 * cross, "1122": squares + own, "1212": cross}
        both = squares + 2 * own + pairs
        kk = {"1111": both + 2 * crossed, "1122": both, "1212": crossed}
        q, k = scale * second * q, scale * second * (q + k)
    kinked = any(low != high for _, (low, high) in layers)
    return FiniteWidthMoments(len(layers), q, z["1111"], k, kk["1111"], kz["1111"], kinked)


def measure_moments(net: Module, x: Any, key: jax.Array, *, seeds: int = 1000) -> MeasuredMoments:
    """Output and NTK at each input, of random networks with one output.

    Parameters
    ----------
    net
        Any network with one output.
    x
        Inputs ``(n, *shape)``.
    key, seeds
        Randomness and number of networks.

    Returns
    -------
    MeasuredMoments
        Float64 arrays of what was computed in the dtype of the inputs.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(8), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> ntk.theory.measure_moments(net, jnp.ones((2, 3)), jax.random.key(0), seeds=5).ntk.shape
    (5, 2)
    """
    x = jnp.asarray(x)
    if net.output_shape(x.shape[1:]) != (1,):
        raise InputError(f"the network has outputs {net.output_shape(x.shape[1:])}; it needs one.")
    keys = jax.random.split(key, seeds)
    outputs, kernel = _outputs_and_ntk(net, keys, x)
    return MeasuredMoments(np.asarray(outputs, float), np.asarray(kernel, float))


@compiled(static_argnums=0)
def _outputs_and_ntk(net: Module, keys: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    def at(params: Any, example: jax.Array) -> tuple[jax.Array, jax.Array]:
        f, gradient = jax.value_and_grad(lambda p: net.apply(p, example[None])[0, 0])(params)
        return f, sum(((g**2).sum() for g in jax.tree.leaves(gradient)), jnp.zeros_like(f))

    def of(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        params = net.init(key, x.shape[1:])
        return jax.vmap(lambda example: at(params, example))(x)

    # A loop over groups: of many networks at once the gradients would fill the memory.
    return jax.lax.map(of, keys, batch_size=64)


def read_layers(net: Module) -> list[tuple[Dense, tuple[float, float]]]:
    """Layers with weights, and the slopes below and above zero of the activation before each."""
    found: list[tuple[Dense, tuple[float, float]]] = []
    slopes = _LINEAR
    for layer in unrolled(net):
        if isinstance(layer, Dense):
            if layer.b_std is not None or layer.parameterization != "ntk":
                raise InputError(f"{layer!r}: moments are known in NTK parameterization, no bias.")
            found.append((layer, slopes))
            slopes = _LINEAR
            continue
        if isinstance(layer, Flatten | Identity):
            continue
        steps = layer.vector_steps((1,)) if found else None
        if not steps or not isinstance(steps[0], TwoSlopes) or len(steps) > 1 or slopes != _LINEAR:
            raise InputError(
                f"moments at finite width are not known with {layer!r} there: give Dense layers "
                "with one activation such as Relu between them."
            )
        slopes = float(steps[0].a), float(steps[0].b)
    if not found or found[-1][0].width != 1 or slopes != _LINEAR:
        raise InputError("the network must end in Dense(1): moments are those of one output.")
    return found
