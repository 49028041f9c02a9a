"""One experiment with one network: descriptions of the same training run, from kernel to real."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import jax
import numpy as np
import optax

from ntk_lab.compare.budget import DESCENT, FLOW, NETWORK, Stages, measure
from ntk_lab.compare.data import Data, spread
from ntk_lab.compare.process import Process
from ntk_lab.empirical import ntk
from ntk_lab.errors import StabilityError
from ntk_lab.losses import Loss, squared
from ntk_lab.predict import Prediction, gradient_descent, gradient_flow, max_learning_rate
from ntk_lab.train import Trajectory, ensemble, linearized_descent

# Of the ODE for losses other than squared error: far below any gap that is told apart.
_FLOW_RTOL = 1e-5

OptimizerLike = optax.GradientTransformation | Callable[[float], optax.GradientTransformation]


class Network(Protocol):
    """What an experiment needs of a network: a pair has it, and so has any model made to fit."""

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> Any:
        """Initial parameters."""
        ...

    @property
    def apply(self) -> Callable[[Any, Any], jax.Array]:
        """Function of parameters and inputs to outputs ``(n, C)``."""
        ...

    def learning_rate_scale(self) -> float:
        """Factor on the learning rate that makes time comparable between widths."""
        ...


@dataclass(frozen=True, eq=False)
class Experiment:
    """All that decides the numbers of one network, except which seeds are run.

    ``kernels`` are the infinite-width NTKs of (train, train) and (test, train), or None: then
    predictions start from each seed's own empirical NTK. ``learning_rate`` is in units of NTK
    parameterization; the run uses it times ``net.learning_rate_scale()``. ``process`` is the
    predicted distribution over initializations, where there is one. ``descent_rate`` and
    ``descent_record`` are those of the stages of plain gradient descent, where they differ from the
    run's: for an optimizer of its own pace. ``sharpness`` is that of the real run.
    """

    net: Network
    kernels: tuple[jax.Array, jax.Array] | None
    data: Data
    learning_rate: float
    steps: int
    record: tuple[int, ...]
    optimizer: OptimizerLike | None
    batch_size: int | None
    key: int
    kernel_points: int
    loss: Loss = squared
    process: Process | None = None
    descent_rate: float | None = None
    descent_record: tuple[int, ...] | None = None
    linearized_optimizer: bool = False
    sharpness: bool = False

    @cached_property
    def rate(self) -> float:
        """Learning rate of the run at this width."""
        return self.learning_rate * self.net.learning_rate_scale()

    @cached_property
    def plain(self) -> tuple[float, tuple[int, ...]]:
        """Rate of the stages of gradient descent, and after which steps they are recorded."""
        rate = self.rate if self.descent_rate is None else self.descent_rate
        return rate, self.descent_record or self.record

    @cached_property
    def times(self) -> np.ndarray:
        """Training times of the recorded steps, in the dtype of the targets."""
        rate, record = self.plain
        return rate * np.asarray(record).astype(self.data.y_train.dtype)

    @cached_property
    def descent(self) -> optax.GradientTransformation:
        """Full-batch gradient descent."""
        return optax.sgd(self.plain[0])

    @cached_property
    def parameters(self) -> int:
        """Number of parameters of the finite network."""
        shapes = jax.eval_shape(self.initial, jax.random.key(0))
        return sum(p.size for p in jax.tree.leaves(shapes))

    def initial(self, key: jax.Array) -> Any:
        """Initial parameters, in the precision of the targets."""
        return self.net.init(key, self.data.x_train.shape[1:], self.data.y_train.dtype)

    def start(self, seeds: list[int]) -> Any:
        """Initial parameters of several seeds, stacked."""
        root = jax.random.key(self.key)
        drawn = [self.initial(jax.random.fold_in(root, s)) for s in seeds]
        return jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *drawn)

    def run(self, seeds: list[int]) -> list[dict[str, np.ndarray]]:
        """Measures of each seed, each an array over the recorded steps."""
        params = self.start(seeds)
        runs = {
            "linearized network": self._linearized(params, seeds),
            "network under gradient descent": self._descend(
                params, seeds, kernel=True, sharpness=self.sharpness and not self.changed
            ),
        }
        if self.changed:
            runs["network"] = self.train(params, seeds, kernel=True, sharpness=self.sharpness)
            if self.linearized_optimizer:
                name = "linearized network with the optimizer"
                runs[name] = self.train(params, seeds, linearized=True)
        self._check_divergence(runs, seeds)
        predicted = self._predict(params, runs["linearized network"])
        results = []
        for s in range(len(seeds)):
            stages = Stages({k: v[s] for k, v in predicted.items()}, runs, s)
            results.append(measure(stages, self.data, self.loss))
            if self.process is not None:
                results[-1] |= self.process.measure(stages.outputs()[NETWORK])
        return results

    @property
    def changed(self) -> bool:
        """Whether the real run differs from full-batch gradient descent."""
        return self.optimizer is not None or self.batch_size is not None

    def _descend(self, params, seeds, **options) -> Trajectory:
        """Full-batch gradient descent, recorded at the times of the run."""
        record = self.plain[1]
        steps = max(record[-1], self.steps) if self.descent_record is None else record[-1]
        return self._ensemble(params, seeds, self.descent, steps, record, None, **options)

    def _linearized(self, params, seeds) -> Trajectory:
        """The linearized network under full-batch gradient descent."""
        if self.loss is not squared:
            return self._descend(params, seeds, linearized=True)
        data, (rate, record) = self.data, self.plain
        return linearized_descent(
            self.net.apply, params, data.x_train, data.y_train, data.x_test,
            learning_rate=rate, steps=record[-1], record=(0, *record), seeds=tuple(seeds),
        )  # fmt: skip

    def train(self, params, seeds, **options) -> Trajectory:
        """The network, or its linearization, as it is really trained."""
        optimizer, batch = self.real_optimizer, self.batch_size
        return self._ensemble(params, seeds, optimizer, self.steps, self.record, batch, **options)

    def _ensemble(
        self,
        params,
        seeds,
        optimizer,
        steps,
        record,
        batch,
        *,
        linearized=False,
        kernel=False,
        sharpness=False,
    ) -> Trajectory:
        data = self.data
        points = spread(len(data.x_train), self.kernel_points)
        return ensemble(
            self.net.apply,
            params,
            data.x_train,
            data.y_train,
            data.x_test,
            optimizer=optimizer,
            steps=steps,
            record=(0, *record),
            loss=self.loss,
            batch_size=batch,
            key=jax.random.key(self.key),
            linearized=linearized,
            kernel_points=data.x_train[points] if kernel else None,
            sharpness=sharpness,
            seeds=tuple(seeds),
            divergence="record",  # said below, with what to do about it
        )

    @cached_property
    def real_optimizer(self) -> optax.GradientTransformation:
        """What the network is really trained with."""
        if self.optimizer is None:
            return self.descent
        if isinstance(self.optimizer, optax.GradientTransformation):
            return self.optimizer
        return self.optimizer(self.rate)

    def _predict(self, params: Any, linear: Trajectory) -> dict[str, np.ndarray]:
        """Kernel predictions on the test set, ``(seeds, T, n, C)``, from each seed's own start."""
        assert linear.test is not None
        if self.kernels is None:
            flows = [self._own_flow(params, linear, s) for s in range(len(linear.loss))]
            return {FLOW: np.stack(flows)}
        if self.loss is not squared:
            starts = zip(linear.train[:, 0], linear.test[:, 0], strict=True)
            both = [self._from_kernels(self.kernels, *start) for start in starts]
            return {FLOW: np.stack([f for f, _ in both]), DESCENT: np.stack([d for _, d in both])}
        # One kernel serves all seeds: their outputs stand side by side as columns.
        seeds, outputs = len(linear.train), self.data.y_train.shape[1]
        f0 = (_columns(f[:, 0]) for f in (linear.train, linear.test))
        means = self._from_kernels(self.kernels, *f0, copies=seeds)
        flow, descent = (
            m.reshape(len(self.record), -1, seeds, outputs).transpose(2, 0, 1, 3) for m in means
        )
        return {FLOW: flow, DESCENT: descent}

    def _own_flow(self, params: Any, linear: Trajectory, s: int) -> np.ndarray:
        """Gradient flow with the empirical NTK of one seed."""
        assert linear.test is not None
        own = jax.tree.map(lambda leaf: leaf[s], params)
        x, x_test = self.data.x_train, self.data.x_test
        kernels = (ntk(self.net.apply, own, x), ntk(self.net.apply, own, x_test, x))
        start = linear.train[s, 0], linear.test[s, 0]
        return _test_means(self.flow(kernels, *start, self.times))

    def flow(self, kernels, f0_train, f0_test, times: np.ndarray, copies: int = 1) -> Prediction:
        """Gradient flow on the run's loss from given outputs, ``copies`` of them side by side."""
        k_train, k_test = kernels
        y = np.tile(np.asarray(self.data.y_train), (1, copies))
        start = {"f0_train": f0_train, "f0_test": f0_test}
        if self.loss is squared:
            return gradient_flow(k_train, y, k_test, **start).at(times)
        flow = gradient_flow(k_train, y, k_test, loss=self.loss, **start)
        return flow.at(times, rtol=_FLOW_RTOL)

    def _from_kernels(self, kernels, f0_train, f0_test, copies=1) -> tuple[np.ndarray, np.ndarray]:
        """Test outputs of flow and of descent."""
        k_train, k_test = kernels
        y = np.tile(np.asarray(self.data.y_train), (1, copies))
        descent = gradient_descent(
            k_train, y, k_test, learning_rate=self.plain[0],
            f0_train=f0_train, f0_test=f0_test, loss=self.loss,
        )  # fmt: skip
        flow = self.flow(kernels, f0_train, f0_test, self.times, copies)
        return _test_means(flow), _test_means(descent.at(np.asarray(self.plain[1])))

    def _check_divergence(self, runs: dict[str, Trajectory], seeds: list[int]) -> None:
        for name, run in runs.items():
            assert run.test is not None
            finite = [np.isfinite(run.loss[i]) & np.isfinite(run.test[i]).all((1, 2))
                      for i in range(len(seeds))]  # fmt: skip
            bad = [i for i, fine in enumerate(finite) if not fine.all()]
            if not bad:
                continue
            last = int(np.flatnonzero(~finite[bad[0]])[0])
            before = int(run.steps[last - 1]) if last else 0
            limit = "" if self.kernels is None else (
                " is below the kernel's limit 2 / lambda_max = "
                f"{float(max_learning_rate(self.kernels[0])):.4g}, but this finite network is "
                "sharper than its kernel, or the optimizer adds to the rate"
            )  # fmt: skip
            raise StabilityError(
                f"training diverged: the {name} of seed {seeds[bad[0]]} has outputs that are not "
                f"finite after step {before}, the last recorded one that is. The learning rate "
                f"{self.plain[0]:.4g}{limit}. Use a smaller learning rate. Widths and seeds that "
                "finished before are kept in the folder, if there is one."
            )


def _test_means(prediction: Prediction) -> np.ndarray:
    assert prediction.test is not None
    return np.asarray(prediction.test.mean)


def _columns(f: Any) -> np.ndarray:
    """``(seeds, n, outputs)`` to ``(n, seeds * outputs)``."""
    return np.asarray(f).transpose(1, 0, 2).reshape(f.shape[1], -1)
