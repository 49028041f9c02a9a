"""The main job: whether kernel regression predicts the training of a network."""

import os
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from ntk_lab.compare.centred import Centred
from ntk_lab.compare.checkpoint import (
    Checkpoint,
    fingerprint,
    loss_fingerprint,
    optimizer_fingerprint,
)
from ntk_lab.compare.checks import check_levels, check_training, check_whole, is_whole
from ntk_lab.compare.comparison import Comparison
from ntk_lab.compare.data import Data, read_data
from ntk_lab.compare.execute import Report, run_all
from ntk_lab.compare.experiment import Experiment, OptimizerLike
from ntk_lab.compare.process import predict_process
from ntk_lab.errors import InputError, StabilityError
from ntk_lab.kernel import Kernel, is_gaussian
from ntk_lab.losses import Loss, loss_name, read_loss, squared
from ntk_lab.nn import Module
from ntk_lab.predict import max_learning_rate
from ntk_lab.theory import width_theory

_DEFAULT_SHARE = 0.02


def compare(
    net: Module,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    widths: tuple[int, ...] = (64, 256, 1024),
    seeds: int = 8,
    learning_rate: float | None = None,
    steps: int = 500,
    record: tuple[int, ...] | None = None,
    parameterization: str | None = None,
    alpha: float | None = None,
    loss: str | Loss = "squared",
    optimizer: OptimizerLike | None = None,
    batch_size: int | None = None,
    tolerance: float = 0.15,
    confidence: float = 0.95,
    kernel_points: int = 24,
    sharpness: bool = False,
    key: int = 0,
    folder: str | os.PathLike | None = None,
    progress: Report = None,
) -> Comparison:
    """Compare kernel regression with trained networks of several widths, with error bars.

    Five descriptions of the same training run, from the same initial outputs: gradient flow with
    the infinite-width NTK; the same in discrete steps; the linearized network; the network under
    full-batch gradient descent; and, if asked for, under ``optimizer`` or mini-batches. The gap
    between neighbours, relative to how far the function moved on the test set, has one cause
    each: discretization, finite-width kernel, feature learning, optimizer.

    Parameters
    ----------
    net
        Architecture; its hidden layers are set to each of ``widths`` in turn.
    train, test
        Pairs ``(x, y)``: inputs ``(n, *shape)``; ``y`` integer class numbers ``(n,)``, or real
        targets ``(n,)`` or ``(n, outputs)``.
    widths, seeds
        Widths of the hidden layers, and initializations of each.
    learning_rate
        In units of NTK parameterization (other parameterizations multiply it by
        ``net.learning_rate_scale()``), so that time ``learning_rate * steps`` compares across
        widths. Default: 0.02 of the stability limit ``2 n / lambda_max`` of the infinite-width
        NTK, small enough that discretization does not hide the rest.
    steps, record
        Training steps, and after which of them to compare; default 16, log-spaced.
    parameterization
        Set ``net.with_parameterization`` first; default: as the network is.
    alpha
        Train ``alpha (f - f_0)`` instead, at learning rates over ``alpha^2``: the way from rich
        (small) to lazy (large) training of arXiv:1812.07956, by two copies of the network whose
        difference starts at zero.
    loss
        What all stages are trained on: a name or a function of :mod:`ntk_lab.losses`. Class numbers
        become centred one-hot targets, which classification losses read as classes.
    optimizer, batch_size
        What the network is really trained with: best a function of the learning rate that gives
        an optax optimizer (such as ``optax.sgd``), called with the rate of each width; an
        optimizer made before keeps its own rate, which ``learning_rate`` should match, or the
        gap measures the difference in training time. And the size of mini-batches; all seeds
        share one order of the data, so intervals are for that order.
    tolerance, confidence
        The relative total gap that counts as agreement; one-sided level of the verdicts and
        two-sided level of intervals.
    kernel_points
        Training points on which the empirical NTK's drift is measured.
    sharpness
        Record the largest eigenvalues of the loss's Hessian and of the NTK (over the number of
        examples) along the real run, both in the units in which ``2 / learning_rate`` is the limit
        of stability.
    key
        Seed of all randomness.
    folder
        Keep finished seeds there, and continue from those that are there.
    progress
        Called before each piece of work and at the end.

    Returns
    -------
    Comparison
        In the dtype of the inputs; ``print`` it, ``.plot()``, ``.report(folder)``, ``.dataset``.

    Raises
    ------
    InputError
        Data or settings that cannot be compared; the text says what to do.
    StabilityError
        A learning rate beyond ``2 / lambda_max``, or a network that diverges.

    Notes
    -----
    Cost: for each width and seed two training runs of ``steps`` full-batch steps, the linearized
    one about 1.5 times as dear as the other. arXiv:1902.06720, arXiv:1812.07956.

    Examples
    --------
    >>> import jax, ntk_lab as ntk
    >>> x = jax.random.normal(jax.random.key(0), (20, 3))
    >>> net = ntk.nn.Sequential(ntk.nn.Dense(8), ntk.nn.Relu(), ntk.nn.Dense(1))
    >>> y = x[:, 0]
    >>> ntk.compare(net, (x[:12], y[:12]), (x[12:], y[12:]), widths=(8, 32), seeds=2, steps=10)
    Comparison(widths=(8, 32), seeds=2, steps=10, parameterization='ntk')
    """
    data, loss = read_data(train, test), read_loss(loss)
    widths = _check(net, widths, tolerance, confidence)
    check_whole(seeds=(seeds, 1), steps=(steps, 1), kernel_points=(kernel_points, 2))
    check_whole(key=(key, 0))
    if parameterization is not None:
        net = net.with_parameterization(parameterization)
    if alpha is not None:
        net = _centred(net, alpha)
    name = net.common_parameterization()
    width_theory(name)  # raises where there is none, before anything is trained
    _check_network(net, data, widths)
    record = check_training(steps, record, batch_size, optimizer, len(data.x_train))
    seeds, steps, key, kernel_points = int(seeds), int(steps), int(key), int(kernel_points)
    batch_size = None if batch_size is None else int(batch_size)
    # In NTK parameterization kernels are the same at every width: then as given, so that what is
    # compiled for one comparison serves the next.
    base = net if name == "ntk" else net.with_width(widths[0])
    learning_rate = _learning_rate(base, data, learning_rate)
    shared = _kernels(base, data) if name == "ntk" else None
    experiments = []
    for width in widths:
        sized = net.with_width(width)
        kernels = _kernels(sized, data) if shared is None else shared
        rate, points = learning_rate * sized.learning_rate_scale(), min(kernel_points, len(data[0]))
        process = None
        if loss is squared and alpha is None:
            process = predict_process(kernels, data.y_train, rate, np.asarray(record))
        matrices = kernels[0].ntk, kernels[1].ntk
        experiments.append(
            Experiment(
                sized, matrices, data, learning_rate, steps, record, optimizer, batch_size, key,
                points, loss, process, sharpness=sharpness,
            )
        )  # fmt: skip
    checkpoint = None if folder is None else Checkpoint(folder, _settings(experiments[0]))
    measures = run_all(experiments, widths, seeds, checkpoint, progress)
    settings = {
        "net": net.to_json(),
        "parameterization": name,
        "learning_rate": learning_rate,
        "learning_rate_of_width": [e.rate for e in experiments],
        "stability_limit": float(max_learning_rate(experiments[0].kernels[0])) * learning_rate
        / experiments[0].rate,
        "train": len(data.x_train),
        "test": len(data.x_test),
        "dtype": data.x_train.dtype.name,
        "batch_size": batch_size,
        "optimizer": experiments[0].changed,
        "loss": loss_name(loss),
        "alpha": alpha,
        "key": key,
    }  # fmt: skip
    times = learning_rate * np.asarray(record, float)
    seeds_run = tuple(range(seeds))
    return Comparison(measures, widths, seeds_run, record, times, settings, tolerance, confidence)


def _check(net, widths, tolerance, confidence):
    if not isinstance(net, Module):
        raise InputError(
            f"compare needs an ntk_lab.nn network, whose width can be changed; got {type(net)}."
        )
    widths = tuple(widths) if np.ndim(widths) else (widths,)
    if not widths or not all(is_whole(w) and w >= 1 for w in widths):
        raise InputError(f"widths={widths} must be whole numbers of at least 1.")
    if list(widths) != sorted(set(widths)):
        raise InputError(f"widths={widths} must rise, each once.")
    check_levels(tolerance, confidence)
    return tuple(int(w) for w in widths)


def _centred(net: Module, alpha: float) -> Centred:
    if isinstance(alpha, bool) or not 0 < alpha < float("inf"):
        raise InputError(f"alpha={alpha} must be a positive number.")
    return Centred(net, float(alpha))


def _check_network(net: Module, data: Data, widths: tuple[int, ...]) -> None:
    sized = net.with_width(widths[0])
    shape = sized.output_shape(data.x_train.shape[1:])
    if shape != data.y_train.shape[1:]:
        raise InputError(
            f"the network maps an example of shape {data.x_train.shape[1:]} to {shape}, but the "
            f"targets have {data.y_train.shape[1]} outputs. Its last layer must be "
            f"ntk.nn.Dense({data.y_train.shape[1]}), after ntk.nn.Flatten() for images. (Class "
            "numbers are integers of shape (n,); real targets of regression are floats.)"
        )
    if len(widths) > 1 and sized == net.with_width(widths[1]):
        raise InputError(
            "the network has no hidden layer whose width could change: every width would be the "
            "same network. Add hidden layers, or give a single width."
        )
    if not is_gaussian(sized, data.x_train.shape[1:], data.x_train.dtype):
        raise InputError(
            "the network does not end in a layer with weights: with finitely many outputs its NTK "
            f"stays random at every width. Let it end in ntk.nn.Dense({shape[-1]})."
        )


def _learning_rate(net: Module, data: Data, asked: float | None) -> float:
    """The learning rate in units of NTK parameterization, checked against stability."""
    scale = net.learning_rate_scale()
    limit = float(max_learning_rate(net.kernel(data.x_train).ntk)) / scale
    if limit == float("inf"):
        raise InputError(
            "the NTK of this network is zero: no parameter that reaches the output is trained. "
            "Leave at least the last layer out of ntk.nn.Frozen."
        )
    if asked is None:
        return _DEFAULT_SHARE * limit
    if not 0 < asked < float("inf"):
        raise InputError(f"learning_rate={asked} must be a positive number.")
    if asked >= limit:
        raise StabilityError(
            f"the learning rate {asked:.4g} is beyond the limit 2 / lambda_max = {limit:.4g} at "
            "which gradient descent on this kernel diverges (lambda_max of the NTK over the "
            f"number of examples). Use less, for example {_DEFAULT_SHARE * limit:.3g}."
        )
    return float(asked)


def _kernels(net: Module, data: Data) -> tuple[Kernel, Kernel, Kernel]:
    x, x_test = data.x_train, data.x_test
    return net.kernel(x), net.kernel(x_test, x), net.kernel(x_test)


def _settings(e: Experiment) -> dict[str, Any]:
    """What decides the numbers of one width and seed, for the checkpoint."""
    assert isinstance(e.net, Module)
    smallest, optimizer = e.net.with_width(1), None
    if e.optimizer is not None:
        params = smallest.init(jax.random.key(0), e.data.x_train.shape[1:], e.data.x_train.dtype)
        # At the rate in common units: that of a width would tie the folder to the first width.
        made = e.optimizer(e.learning_rate) if callable(e.optimizer) else e.optimizer
        optimizer = optimizer_fingerprint(made, params, e.record[-1])
    return {
        "net": smallest.to_json(),
        "data": fingerprint(*e.data[:4]),
        "learning_rate": f"{e.learning_rate:.12g}",
        "steps": list(e.record),
        "optimizer": optimizer,
        "batch_size": e.batch_size,
        "loss": loss_fingerprint(e.loss, e.data.y_train.shape[1]),
        "kernel_points": e.kernel_points,
        "sharpness": e.sharpness,
        "key": e.key,
        "versions": {name: version(name) for name in ("ntk_lab", "jax", "jaxlib")},
    }
