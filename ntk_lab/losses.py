"""Losses that networks are trained with and that predictions are made for: the same objects.

A loss is a function ``loss(outputs, targets)`` of arrays ``(n, C)`` that gives the loss of each
example, shape ``(n,)``, or ``(n, C)`` to be summed over outputs, as many of optax's do. What is
trained is its mean over examples, so that time = learning rate x steps means the same for all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ntk_lab.errors import InputError

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def squared(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """``1/2 |f - y|^2`` of each example.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> print(ntk.losses.squared(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]])))
    [2.5]
    """
    return 0.5 * jnp.sum((outputs - targets) ** 2, axis=1)


def cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """``-sum_c p_c log softmax(f)_c`` of each example, over two or more outputs.

    Targets are class probabilities ``p`` up to a constant for each example: one-hot ones, and the
    centred ones of ``ntk.compare`` (``1 - 1/C`` and ``-1/C``), are the same to it. For one output
    see `logistic`.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = jnp.array([[0.0, 0.0]])
    >>> print(ntk.losses.cross_entropy(f, jnp.array([[1.0, 0.0]])).round(4))
    [0.6931]
    >>> print(ntk.losses.cross_entropy(f, jnp.array([[0.5, -0.5]])).round(4))
    [0.6931]
    """
    classes = targets.shape[1]
    if classes < 2:
        raise InputError(
            "cross-entropy got one output, whose softmax is 1 whatever the network says. Give one "
            "output a class, or use the loss 'logistic' with targets of -1 and 1."
        )
    targets = targets + (1 - jnp.sum(targets, axis=1, keepdims=True)) / classes
    return -jnp.sum(targets * jax.nn.log_softmax(outputs, axis=1), axis=1)


def logistic(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """``sum_c log(1 + exp(-s_c f_c))`` of each example, ``s`` the side to take.

    One output: ``s`` is 1 for a positive target and -1 for others, so that labels may be -1 and 1
    or 0 and 1. Several: ``s`` is 1 for the largest target (the class) and -1 for the others, one
    against the rest.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> print(ntk.losses.logistic(jnp.array([[0.0]]), jnp.array([[-1.0]])).round(4))
    [0.6931]
    """
    return jnp.sum(jax.nn.softplus(-_sides(targets) * outputs), axis=1)


def hinge(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """``sum_c max(0, 1 - s_c f_c)`` of each example, ``s`` as in `logistic`.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> print(ntk.losses.hinge(jnp.array([[0.25, 3.0]]), jnp.array([[1.0, 0.0]])))
    [4.75]
    """
    return jnp.sum(jax.nn.relu(1 - _sides(targets) * outputs), axis=1)


@dataclass(frozen=True)
class Huber:
    """``r^2 / 2`` for residuals ``|r| <= delta`` and ``delta (|r| - delta / 2)`` beyond.

    Summed over outputs, of each example.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> print(ntk.losses.Huber(1.0)(jnp.array([[3.0]]), jnp.array([[0.0]])))
    [2.5]
    """

    delta: float = 1.0

    def __post_init__(self):
        if not 0 < self.delta < float("inf"):
            raise InputError(f"Huber got delta={self.delta}; it must be positive and finite.")

    def __call__(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Loss of each example."""
        size = jnp.abs(outputs - targets)
        inside = jnp.minimum(size, self.delta)
        return jnp.sum(inside * (size - 0.5 * inside), axis=1)


@dataclass(frozen=True)
class TokenCrossEntropy:
    """Mean over positions of ``-log softmax(f)`` at the right token, of language models.

    Outputs and targets are ``(n, s vocabulary)``: the ``vocabulary`` outputs of ``s`` positions,
    flattened, as a model's ``(n, s, vocabulary)`` are by ``reshape(n, -1)``. Targets are
    probabilities, one-hot ones for known tokens; positions whose targets are all zero are left out
    of the mean, and an example without any has a loss of zero. One with negative targets, such as
    the centred ones of ``ntk.compare``, has a loss of NaN: which positions count is lost in them.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> targets = jnp.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    >>> print(ntk.losses.TokenCrossEntropy(2)(jnp.zeros((2, 4)), targets).round(4))
    [0.6931 0.6931]
    """

    vocabulary: int

    def __post_init__(self):
        if isinstance(self.vocabulary, bool) or not isinstance(self.vocabulary, int):
            raise InputError(f"TokenCrossEntropy got vocabulary={self.vocabulary!r}; an integer.")
        if self.vocabulary < 2:
            raise InputError(f"TokenCrossEntropy got vocabulary={self.vocabulary}; at least 2.")

    def __call__(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Loss of each example."""
        if outputs.shape[1] % self.vocabulary:
            raise InputError(
                f"{outputs.shape[1]} outputs are no whole number of positions with a vocabulary of "
                f"{self.vocabulary}: give (n, positions * vocabulary)."
            )
        shape = len(outputs), -1, self.vocabulary
        targets = targets.reshape(shape)
        each = -jnp.sum(targets * jax.nn.log_softmax(outputs.reshape(shape), axis=2), axis=2)
        scored = jnp.sum(targets, axis=(1, 2))
        loss = jnp.sum(each, axis=1) / jnp.where(scored > 0, scored, 1)
        return jnp.where(jnp.min(targets, axis=(1, 2)) >= 0, loss, jnp.nan)


NAMED: dict[str, Loss] = {
    "squared": squared,
    "cross_entropy": cross_entropy,
    "logistic": logistic,
    "hinge": hinge,
    "huber": Huber(),
}


def read_loss(loss: str | Loss) -> Loss:
    """The loss of a name, or the function itself.

    Raises
    ------
    InputError
        A name that is not known, or something that cannot be called.
    """
    if isinstance(loss, str):
        if loss not in NAMED:
            raise InputError(f"no loss is called {loss!r}; there are {', '.join(NAMED)}.")
        return NAMED[loss]
    if not callable(loss):
        raise InputError(
            f"loss={loss!r} must be a name ({', '.join(NAMED)}) or a function of outputs (n, C) "
            "and targets (n, C) that gives the loss of each example, shape (n,)."
        )
    return loss


def loss_name(loss: Loss) -> str:
    """What to call a loss: its name here, or how it prints."""
    for name, known in NAMED.items():
        if known == loss:
            return name
    return getattr(loss, "__name__", repr(loss))


def mean_loss(loss: Loss, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over examples of ``loss``, summed over outputs where it says one number an output.

    Raises
    ------
    InputError
        Targets of another shape than the outputs, which would be spread over all of them; a loss
        of another shape, such as one that averages over the batch itself.
    """
    if targets.shape != outputs.shape:
        raise InputError(
            f"targets have shape {targets.shape} and outputs {outputs.shape}; they must be equal: "
            "(n, C), with one column for one output (y[:, None])."
        )
    values = loss(outputs, targets)
    if values.shape not in (outputs.shape[:1], outputs.shape):
        raise InputError(
            f"the loss of outputs {outputs.shape} has shape {values.shape}; expected one number an "
            f"example, ({len(outputs)},), not averaged over them: the mean is taken here."
        )
    return jnp.sum(values) / len(outputs)


def _sides(targets: jax.Array) -> jax.Array:
    single = targets.shape[1] == 1
    chosen = targets > 0 if single else targets == jnp.max(targets, axis=1, keepdims=True)
    return jnp.where(chosen, 1, -1).astype(targets.dtype)
