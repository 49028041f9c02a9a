"""The same question for anybody's JAX model, which has no infinite width of its own."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compare.checkpoint import (
    Checkpoint,
    fingerprint,
    loss_fingerprint,
    optimizer_fingerprint,
)
from ntk_lab.compare.checks import check_levels, check_training, check_whole
from ntk_lab.compare.comparison import Comparison
from ntk_lab.compare.data import Data, read_data
from ntk_lab.compare.execute import Report, run_all
from ntk_lab.compare.experiment import Experiment, OptimizerLike
from ntk_lab.compare.pace import Pace, find_pace
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.losses import Loss, loss_name, read_loss

Model = Callable[[Any, jax.Array], jax.Array]
_ONE = 1  # a model has no width: its only row


@dataclass(frozen=True, eq=False)
class Given:
    """A model with given initial parameters, or with a function that draws them."""

    apply: Model
    params: Any

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> Any:
        """Initial parameters."""
        del shape, dtype
        return self.params(key) if self.drawn else self.params

    @property
    def drawn(self) -> bool:
        """Whether ``params`` is a function; trees of arrays may be callable too (equinox)."""
        return callable(self.params) and jax.tree_util.all_leaves([self.params])

    def learning_rate_scale(self) -> float:
        """One: there is no other width to compare with."""
        return 1.0


def compare_model(
    f: Model,
    params: Any,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    optimizer: OptimizerLike | None = None,
    steps: int = 1000,
    record: tuple[int, ...] | None = None,
    loss: str | Loss = "squared",
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seeds: int = 8,
    tolerance: float = 0.15,
    confidence: float = 0.95,
    kernel_points: int = 24,
    sharpness: bool = False,
    key: int = 0,
    folder: str | os.PathLike | None = None,
    progress: Report = None,
) -> Comparison:
    """Compare kernel regression with the training of any function ``f(params, x)``.

    There is no infinite kernel, so the budget starts from the model's own empirical NTK at its
    initial parameters: gradient flow with it (discretization gap:) the linearized model under
    gradient descent (feature learning:) the model under gradient descent (optimizer:) the model as
    it is really trained. Beside the budget stands the linearized model under the real optimizer,
    which is the kernel regime of that optimizer (for Adam see arXiv:2210.05643).

    Parameters
    ----------
    f
        Function of parameters, any pytree of arrays, and a batch ``(n, *shape)``, integers
        included, to outputs ``(n, C)``. Models of flax, equinox and haiku become one by
        ``f, params = ntk.interop.from_nnx(model)`` and its like; they run in inference mode, with
        batch statistics frozen and dropout off.
    params
        Initial parameters: a pytree; or a function that draws one from a ``jax.random`` key, for
        error bars over ``seeds`` initializations. A single pytree is one run, whose error bars
        are those of the finite number of test examples (the delta method).
    train, test, loss, batch_size, tolerance, confidence
        As in :func:`ntk_lab.compare`.
    optimizer
        Any optax optimizer, or a function of the learning rate that gives one; default plain
        gradient descent.
    steps, record
        Steps of the optimizer, and after which of them to compare; default 16, log-spaced.
    learning_rate
        Of the stages of gradient flow and descent. Default: where ``optimizer`` is made already,
        each recorded step of the run stands beside the time at which gradient flow has the same
        training loss (so the optimizer's gap is one of path, not of speed); otherwise 0.02 of the
        limit of stability of the empirical NTK.
    seeds
        Initializations, where ``params`` is a function.
    kernel_points, sharpness, key, folder, progress
        As in :func:`ntk_lab.compare`.

    Returns
    -------
    Comparison
        With one row, in the dtype of the outputs. ``.horizon()`` says how long the kernel holds.

    Raises
    ------
    InputError
        Data, parameters or settings that cannot be compared; a model that mixes examples of a
        batch.
    StabilityError
        Training that diverges: which stage, which seed, after which step.

    Notes
    -----
    Cost a seed: the run itself, about three times that for the linearized one, and an empirical
    NTK of ``(n C)^2`` numbers with its eigendecomposition, ``O((n C)^3)`` (squared error; other
    losses integrate an equation instead). Stages of gradient descent take up to 20 steps for one
    of an optimizer that travels far: ``settings["descent_steps"]``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk
    >>> def f(w, x):
    ...     return jnp.tanh(x @ w["in"]) @ w["out"]
    >>> def draw(key):
    ...     a, b = jax.random.split(key)
    ...     return {"in": jax.random.normal(a, (3, 32)), "out": jax.random.normal(b, (32, 1)) / 6}
    >>> x = jax.random.normal(jax.random.key(0), (20, 3))
    >>> y = x[:, 0]
    >>> ntk.compare_model(f, draw, (x[:12], y[:12]), (x[12:], y[12:]), steps=20, seeds=2)
    Comparison(a function of 128 parameters, seeds=2, steps=20)
    """
    loss = read_loss(loss)
    check_levels(tolerance, confidence)
    check_whole(seeds=(seeds, 1), steps=(steps, 1), kernel_points=(kernel_points, 2), key=(key, 0))
    net = Given(f, params)
    data = _read(net, train, test, int(key))
    record = check_training(steps, record, batch_size, optimizer, len(data.x_train))
    seeds = int(seeds) if net.drawn else 1
    points = min(int(kernel_points), len(data.x_train))
    batch = None if batch_size is None else int(batch_size)

    def experiment(pace: Pace) -> Experiment:
        return Experiment(
            net, None, data, pace.rate, int(steps), record, optimizer, batch, int(key), points,
            loss, None, pace.rate, pace.record, linearized_optimizer=True, sharpness=sharpness,
        )  # fmt: skip

    pace = find_pace(experiment, learning_rate)
    chosen = experiment(pace)
    checkpoint = None if folder is None else Checkpoint(folder, _settings(chosen))
    measures = run_all([chosen], (_ONE,), seeds, checkpoint, progress)
    settings = {
        "net": _describe(chosen.parameters),
        "model": _describe(chosen.parameters),
        "parameterization": None,
        "learning_rate": pace.rate,
        "learning_rate_of_width": [pace.rate],
        "stability_limit": pace.limit,
        "pace": pace.remark,
        "descent_steps": list(pace.record),
        "train": len(data.x_train),
        "test": len(data.x_test),
        "dtype": data.y_train.dtype.name,
        "batch_size": batch,
        "optimizer": chosen.changed,
        "loss": loss_name(loss),
        "key": int(key),
        "error_bars": "seeds" if net.drawn else "test examples",
    }
    seeds_run = tuple(range(seeds))
    return Comparison(
        measures, (_ONE,), seeds_run, record, pace.times, settings, tolerance, confidence
    )


def _describe(parameters: int) -> str:
    return f"a function of {parameters:,} parameters"


def _read(net: Given, train: Any, test: Any, key: int) -> Data:
    """Data in the dtype of the model's outputs, and checks of the model on it."""
    data = read_data(train, test, integers=True)
    params = net.init(jax.random.fold_in(jax.random.key(key), 0), (), None)
    try:
        outputs = jax.eval_shape(net.apply, params, data.x_train)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise InputError(
            f"f(params, x) cannot be called on the training inputs, of shape {data.x_train.shape} "
            f"and dtype {data.x_train.dtype}: {error}"
        ) from error
    shape = getattr(outputs, "shape", None)
    if shape != data.y_train.shape:
        raise InputError(
            f"f(params, x) gives {shape or type(outputs)} for {len(data.x_train)} training "
            f"examples whose targets are {data.y_train.shape}; they must agree. A model of a "
            "single output gives (n, 1); class numbers need an output for each class."
        )
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise InputError(f"f(params, x) gives {outputs.dtype}; outputs must be floating point.")
    for leaf in jax.tree.leaves(params):
        if not np.isfinite(np.asarray(leaf)).all():
            raise InputError("the initial parameters have NaN or infinite entries.")
    values = np.asarray(net.apply(params, data.x_train))
    if not np.isfinite(values).all():
        raise NumericalError(
            f"f(params, x) gives {int((~np.isfinite(values)).sum())} NaN or infinite outputs of "
            f"{values.size} before training: check the inputs and the initial parameters."
        )
    return data._replace(
        y_train=data.y_train.astype(outputs.dtype), y_test=data.y_test.astype(outputs.dtype)
    )


def _settings(e: Experiment) -> dict[str, Any]:
    """What decides the numbers of a seed, for the checkpoint; a function is known by its values."""
    params = jax.tree.map(lambda leaf: leaf[0], e.start([0]))
    ones = jax.tree.map(jnp.ones_like, params)
    values = jax.jvp(lambda p: e.net.apply(p, e.data.x_train), (params,), (ones,))
    optimizer = None
    if e.optimizer is not None:
        optimizer = optimizer_fingerprint(e.real_optimizer, params, e.record[-1])
    return {
        "model": fingerprint(*values),
        "data": fingerprint(*e.data[:4]),
        "learning_rate": f"{e.learning_rate:.6g}",
        "descent": list(e.plain[1]),
        "steps": list(e.record),
        "optimizer": optimizer,
        "batch_size": e.batch_size,
        "loss": loss_fingerprint(e.loss, e.data.y_train.shape[1]),
        "kernel_points": e.kernel_points,
        "sharpness": e.sharpness,
        "key": e.key,
        "versions": {name: version(name) for name in ("ntk_lab", "jax", "jaxlib")},
    }
