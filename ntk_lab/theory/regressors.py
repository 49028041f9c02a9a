"""Predictors that are fitted to data from random initial parameters, as functions of both."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from ntk_lab import nn
from ntk_lab.errors import InputError

Predictor = Callable[[Array], Array]


class Regressor(Protocol):
    """``regressor(key, x, y)`` draws parameters by the key, fits them, and returns ``x -> f(x)``.

    Pure, so that it can be vectorised over keys and data; hashable, so that it is compiled once.
    """

    def __call__(self, key: Array, x: Array, y: Array) -> Predictor:
        """Fit to inputs ``(n, *shape)`` and labels ``(n, outputs)``."""
        ...


@dataclass(frozen=True)
class RandomFeatureRidge:
    """Ridge regression on the outputs of a network that stays as it is drawn.

    Features ``z(x)`` are the ``p`` outputs of ``net`` over the root of ``p``, so that
    ``z(x) . z(x')`` tends to ``net.kernel(x, x').nngp``: what :func:`random_feature_curve` says of
    that kernel's modes is about this. Cost: ``O(n p min(n, p))`` beside the features.

    Attributes
    ----------
    net
        A pair without readout, such as ``Sequential(Dense(p), Relu())``.
    ridge
        Positive; added to the kernel of the features. At rounding's size it stands for none.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(50), ntk.nn.Relu())
    >>> x = jnp.eye(4)
    >>> f = ntk.theory.RandomFeatureRidge(net, 1e-4)(jax.random.key(0), x, x[:, :1])
    >>> print(abs(f(x) - x[:, :1]).max() < 0.02)
    True
    """

    net: nn.Module
    ridge: float

    def __post_init__(self):
        _check_ridge(self.ridge)

    def __call__(self, key: Array, x: Array, y: Array) -> Predictor:
        """Fit the readout."""
        params = self.net.init(key, x.shape[1:])

        def features(x: Array) -> Array:
            outputs = self.net.apply(params, x)
            return outputs / jnp.asarray(outputs.shape[1] ** 0.5, outputs.dtype)

        weights = _ridge_regression(features(x), y, self.ridge)
        return lambda x: features(x) @ weights


@dataclass(frozen=True)
class GradientFeatures:
    """Ridge regression with the NTK of a finite network: its linearization, trained to the end.

    Features are the gradients of the output in all parameters, so that their kernel is the
    empirical NTK; the initial function is taken away (centred). What can be fitted is as many
    examples as there are independent gradients, fewer than parameters where the network has
    symmetries: scaling a Relu neuron's input weights up and its output weight down changes nothing.
    Cost: ``O(n P min(n, P))`` for ``P`` parameters beside the gradients.

    Attributes
    ----------
    net
        A pair with one output.
    ridge
        As of :class:`RandomFeatureRidge`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(50), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> x = jnp.eye(4)
    >>> f = ntk.theory.GradientFeatures(net, 1e-4)(jax.random.key(0), x, x[:, :1])
    >>> print(abs(f(x) - x[:, :1]).max() < 0.02)
    True
    """

    net: nn.Module
    ridge: float

    def __post_init__(self):
        _check_ridge(self.ridge)

    def __call__(self, key: Array, x: Array, y: Array) -> Predictor:
        """Fit the linearization."""
        if y.shape[1] != 1:
            raise InputError(f"gradients of one output are features; got labels {y.shape}.")
        _check_outputs(self.net, x, 1)
        params, restore = ravel_pytree(self.net.init(key, x.shape[1:]))

        def output(params: Array, x: Array) -> Array:
            return self.net.apply(restore(params), x[None])[0, 0]

        def features(x: Array) -> Array:
            return jax.vmap(jax.grad(output), (None, 0))(params, x)

        weights = _ridge_regression(features(x), y, self.ridge)
        return lambda x: features(x) @ weights


@dataclass(frozen=True)
class TrainedNetwork:
    """A network trained on the full batch for a number of steps.

    The loss is ``1/(2n) sum_i |f(x_i) - y_i|^2``. Cost: a forward and a backward pass a step.

    Attributes
    ----------
    net
        A pair with as many outputs as labels have.
    optimizer
        Of optax.
    steps
        Number of updates.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk, optax
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(50), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> x = jnp.eye(4)
    >>> fit = ntk.theory.TrainedNetwork(net, optax.adam(0.1), 200)
    >>> print(abs(fit(jax.random.key(0), x, x[:, :1])(x) - x[:, :1]).max() < 0.02)
    True
    """

    net: nn.Module
    optimizer: optax.GradientTransformation
    steps: int

    def __call__(self, key: Array, x: Array, y: Array) -> Predictor:
        """Train all parameters."""
        _check_outputs(self.net, x, y.shape[1])
        params = self.net.init(key, x.shape[1:])

        def loss(params) -> Array:
            return jnp.sum((self.net.apply(params, x) - y) ** 2) / (2 * len(y))

        def step(_, carry):
            params, state = carry
            # Some of optax's optimizers mix dtypes, such as a float32 count with float64 moments.
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                updates, state = self.optimizer.update(jax.grad(loss)(params), state, params)
                return optax.apply_updates(params, updates), state

        start = params, self.optimizer.init(params)
        trained, _ = jax.lax.fori_loop(0, self.steps, step, start)
        return lambda x: self.net.apply(trained, x)


def _ridge_regression(features: Array, y: Array, ridge: float) -> Array:
    """Weights ``(features, outputs)``, by the smaller of the two systems of equations."""
    n, p = features.shape
    gram = features.T @ features if p < n else features @ features.T
    gram = gram + jnp.asarray(ridge, gram.dtype) * jnp.eye(len(gram), dtype=gram.dtype)
    if p < n:
        return jax.scipy.linalg.solve(gram, features.T @ y, assume_a="pos")
    return features.T @ jax.scipy.linalg.solve(gram, y, assume_a="pos")


def _check_outputs(net: nn.Module, x: Array, outputs: int) -> None:
    found = net.output_shape(x.shape[1:])
    if found != (outputs,):
        raise InputError(f"the network's outputs have shape {found}; expected ({outputs},).")


def _check_ridge(ridge: float) -> None:
    if not ridge > 0:
        raise InputError(f"ridge={ridge}; it must be positive: give a tiny one for none.")
