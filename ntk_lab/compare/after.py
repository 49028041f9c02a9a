"""Kernel regression with a network's own final kernel, beside its initial one and the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compare.data import Data, read_data
from ntk_lab.empirical import ntk
from ntk_lab.empirical.ntk import Model, Params
from ntk_lab.empirical.tiles import default_memory
from ntk_lab.errors import InputError
from ntk_lab.losses import Loss, mean_loss, read_loss
from ntk_lab.predict import gradient_flow
from ntk_lab.solve import Diagnostics, Estimate

NAMES = ("initial kernel", "after kernel", "network")


@dataclass(frozen=True)
class AfterKernelRegression:
    """Three predictors of one test set; made by :func:`after_kernel_regression`.

    Mappings have the entries ``"initial kernel"``, ``"after kernel"`` and ``"network"``. Standard
    errors are over test examples, of the one network that there is.

    Attributes
    ----------
    outputs
        On the test inputs, ``(n_test, C)`` each.
    test_loss
        Mean over test examples, with its standard error.
    accuracy
        Share of test examples whose largest output is that of their class, with its standard
        error; None for targets that are not class numbers.
    distance
        ``|f - f_network| / |f_network - f_0|`` over the test set, ``f_0`` the outputs before
        training: how well a kernel predicts the network. 0 for the network itself.
    drift
        ``|Theta_after - Theta_initial| / |Theta_initial|`` of the training kernels.
    diagnostics
        Spectrum of each training kernel, with the ridge.
    """

    outputs: Mapping[str, np.ndarray]
    test_loss: Mapping[str, Estimate]
    accuracy: Mapping[str, Estimate] | None
    distance: Mapping[str, float]
    drift: float
    diagnostics: Mapping[str, Diagnostics]
    losses: Mapping[str, np.ndarray]

    def difference(self, first: str, second: str) -> Estimate:
        """Test loss of the first predictor less that of the second, on the same examples.

        Its standard error is that of the paired difference, mostly far below those of both.
        """
        for name in (first, second):
            if name not in self.losses:
                raise InputError(f"there is no predictor {name!r}; there are {', '.join(NAMES)}.")
        return _mean(self.losses[first] - self.losses[second])

    def __str__(self) -> str:
        heads = ["test loss", "+-"] + (["accuracy", "+-"] if self.accuracy else [])
        lines = [f"{'':<14}" + "".join(f"  {head:>10}" for head in [*heads, "distance"])]
        for name in NAMES:
            cells = [*self.test_loss[name][:2]]
            cells += self.accuracy[name][:2] if self.accuracy else ()
            numbers = [*map(float, cells), self.distance[name]]
            lines.append(f"{name:<14}" + "".join(f"  {number:>10.4g}" for number in numbers))
        return "\n".join([*lines, f"kernel drift {self.drift:.3g}"])


def after_kernel_regression(
    f: Model,
    params0: Params,
    params: Params,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    loss: str | Loss = "squared",
    outputs: Literal["full", "trace"] = "full",
    start: Literal["initial", "zero"] = "initial",
    ridge: float = 0.0,
    t: float = float("inf"),
    memory: float | None = None,
) -> AfterKernelRegression:
    """Kernel regression with the kernel that a network ends with, and that it starts with.

    Regression on squared error with the empirical NTK at ``params0`` and with that at ``params``,
    on the same training set, beside the network itself. A network that has learned features has
    put them into its after-kernel, which then does better than the initial one and often as well
    as the network (arXiv:2105.14301, arXiv:2010.15110).

    Parameters
    ----------
    f
        Any ``f(params, x)`` to outputs ``(n, C)`` or ``(n,)``.
    params0, params
        Parameters before and after training.
    train, test
        ``(x, y)``; class numbers ``(n,)`` become centred one-hot targets and give accuracies.
    loss
        Measures all three on the test set; kernels fit squared error whatever it is, so that for a
        network trained on another loss accuracies are what to compare.
    outputs
        ``"full"``: the kernel of all outputs, ``(n C)^2`` numbers. ``"trace"``: its mean over
        outputs, shared by all of them, cheaper and another predictor.
    start
        What regression adds to: ``"initial"``, the outputs at ``params0``, with which the initial
        kernel is the linearized network trained to time ``t``; ``"zero"``, plain kernel
        regression.
    ridge
        Added to the diagonal of the training kernels; nothing else is ever added.
    t
        Time of gradient flow, ``learning_rate * steps``; to the end by default.
    memory
        Bytes for kernels; default a quarter of what is free.

    Returns
    -------
    AfterKernelRegression
        ``print`` shows a table.

    Raises
    ------
    InputError
        Data or parameters that do not fit, kernels larger than ``memory``.
    NumericalError
        Values that are not finite.

    Notes
    -----
    Four kernels and two eigendecompositions, ``O((n C)^3)`` or ``O(n^3)``. The after-kernel has
    seen the training targets: its fit of the training set says nothing, only the test set counts.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda w, x: x @ w[:, None] ** 2  # Theta = 4 sum_i w_i^2 x_i x_i'
    >>> x, x_test = jnp.array([[1.0, 1.0], [2.0, 1.0]]), jnp.array([[1.0, 3.0]])
    >>> before, after = jnp.array([0.1, 0.1]), jnp.array([1.0, 0.0])
    >>> found = ntk.after_kernel_regression(f, before, after, (x, x[:, 0]), (x_test, x_test[:, 0]))
    >>> print(found.outputs["network"], found.distance["network"])
    [[1.]] 0.0
    """
    if start not in ("initial", "zero"):
        raise InputError(f"start={start!r}; choose 'initial' or 'zero'.")
    data = read_data(train, test, integers=True)
    measure = read_loss(loss)
    before, after = (_outputs(f, p, data) for p in (params0, params))
    _check_size(data, outputs, memory)
    starts = before if start == "initial" else tuple(jnp.zeros_like(b) for b in before)
    found, diagnostics, kernels = {}, {}, []
    for name, at in zip(NAMES, (params0, params), strict=False):
        kernel, cross = (
            ntk(f, at, a, b, outputs=outputs, memory=memory)
            for a, b in ((data.x_train, None), (data.x_test, data.x_train))
        )
        y = data.y_train.astype(kernel.dtype)
        flow = gradient_flow(kernel, y, cross, f0_train=starts[0], f0_test=starts[1], ridge=ridge)
        predicted = flow.at(t).test
        assert predicted is not None  # as there is a test set
        found[name] = np.asarray(predicted.mean)
        diagnostics[name] = flow.diagnostics
        kernels.append(np.asarray(kernel, np.float64))
    found["network"] = np.asarray(after[1])
    losses = {name: _losses(measure, value, data) for name, value in found.items()}
    return AfterKernelRegression(
        outputs=found,
        test_loss={name: _mean(value) for name, value in losses.items()},
        accuracy=_accuracies(found, data.labels_test),
        distance=_distances(found, np.asarray(before[1])),
        drift=float(np.linalg.norm(kernels[1] - kernels[0]) / np.linalg.norm(kernels[0])),
        diagnostics=diagnostics,
        losses=losses,
    )


def _outputs(f: Model, params: Params, data: Data) -> tuple[jax.Array, jax.Array]:
    """On the training and on the test set."""
    found = []
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        values = f(params, x)
        values = values[:, None] if values.ndim == 1 else values
        if values.shape != y.shape:
            raise InputError(
                f"the model has outputs {values.shape} and the targets are {y.shape}; they must be "
                "equal: one output a class, or a column of targets an output."
            )
        found.append(values)
    return found[0], found[1]


def _check_size(data: Data, outputs: str, memory: float | None) -> None:
    if outputs not in ("full", "trace"):
        raise InputError(f"outputs={outputs!r}; choose 'full' or 'trace'.")
    count = data.y_train.shape[1] if outputs == "full" else 1
    rows, more = len(data.y_train) * count, len(data.y_test) * count
    need = data.y_train.dtype.itemsize * rows * (4 * rows + more)
    limit = default_memory() if memory is None else memory
    if need > limit:
        hint = (
            " Choose outputs='trace', or" if outputs == "full" and count > 1 else " Allow more, or"
        )
        raise InputError(
            f"kernels of {rows:,} rows and their decomposition take {need:,.0f} bytes, but memory="
            f"{limit:,.0f}.{hint} take fewer training examples."
        )


def _losses(measure: Loss, outputs: np.ndarray, data: Data) -> np.ndarray:
    """Of each test example."""
    y = data.y_test.astype(outputs.dtype)
    mean_loss(measure, jnp.asarray(outputs), y)  # refuses losses that average over examples
    values = np.asarray(measure(jnp.asarray(outputs), y), np.float64)
    return values.reshape(len(values), -1).sum(1)


def _accuracies(found: Mapping[str, np.ndarray], labels: Any) -> dict[str, Estimate] | None:
    if labels is None:
        return None
    return {name: _mean((f.argmax(1) == labels).astype(float)) for name, f in found.items()}


def _distances(found: Mapping[str, np.ndarray], before: np.ndarray) -> dict[str, float]:
    network = found["network"].astype(np.float64)
    moved = float(np.linalg.norm(network - before))
    if not moved:
        raise InputError("the network's outputs on the test set are the same before and after.")
    return {name: float(np.linalg.norm(f - network)) / moved for name, f in found.items()}


def _mean(values: np.ndarray) -> Estimate:
    n = len(values)
    error = values.std(ddof=1) / n**0.5 if n > 1 else np.nan
    return Estimate(values.mean(), error, n)  # type: ignore[arg-type]
