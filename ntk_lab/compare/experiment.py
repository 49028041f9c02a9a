"""One experiment at one width: five descriptions of the same training run, from kernel to real."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
import optax

from ntk_lab.compare.budget import Stages, measure
from ntk_lab.compare.data import Data, spread
from ntk_lab.errors import StabilityError
from ntk_lab.nn import Module
from ntk_lab.predict import Prediction, gradient_descent, gradient_flow, max_learning_rate
from ntk_lab.train import ensemble

OptimizerLike = optax.GradientTransformation | Callable[[float], optax.GradientTransformation]


@dataclass(frozen=True, eq=False)
class Experiment:
    """All that decides the numbers at one width, except which seeds are run.

    ``kernels`` are the infinite-width NTKs of (train, train) and (test, train).
    ``learning_rate`` is in units of NTK parameterization; the run uses it times
    ``net.learning_rate_scale()``.
    """

    net: Module
    kernels: tuple[jax.Array, jax.Array]
    data: Data
    learning_rate: float
    steps: int
    record: tuple[int, ...]
    optimizer: OptimizerLike | None
    batch_size: int | None
    key: int
    kernel_points: int

    @cached_property
    def rate(self) -> float:
        """Learning rate of the run at this width."""
        return self.learning_rate * self.net.learning_rate_scale()

    @cached_property
    def descent(self) -> optax.GradientTransformation:
        """Full-batch gradient descent."""
        return optax.sgd(self.rate)

    @cached_property
    def parameters(self) -> int:
        """Number of parameters of the finite network."""
        shapes = jax.eval_shape(self._init, jax.random.key(0))
        return sum(p.size for p in jax.tree.leaves(shapes))

    def _init(self, key: jax.Array) -> Any:
        return self.net.init(key, self.data.x_train.shape[1:], self.data.x_train.dtype)

    def run(self, seeds: list[int]) -> list[dict[str, np.ndarray]]:
        """Measures of each seed, each an array over the recorded steps."""
        root = jax.random.key(self.key)
        params = _stack([self._init(jax.random.fold_in(root, s)) for s in seeds])
        linear = self._train(params, seeds, self.descent, linearized=True)
        network = self._train(params, seeds, self.descent, kernel=True)
        real = network
        if self.optimizer is not None or self.batch_size is not None:
            real = self._train(
                params, seeds, self.real_optimizer, kernel=True, batch=self.batch_size
            )
        self._check_divergence(linear, network, real, seeds)
        flow, descent = self._predict(linear)
        results = []
        for s in range(len(seeds)):
            stages = Stages(flow[s], descent[s], linear, network, real, s)
            results.append(measure(stages, self.data, optimizer=real is not network))
        return results

    def _train(self, params, seeds, optimizer, *, linearized=False, kernel=False, batch=None):
        data = self.data
        points = spread(len(data.x_train), self.kernel_points)
        return ensemble(
            self.net.apply,
            params,
            data.x_train,
            data.y_train,
            data.x_test,
            optimizer=optimizer,
            steps=self.steps,
            record=(0, *self.record),
            batch_size=batch,
            key=jax.random.key(self.key),
            linearized=linearized,
            kernel_points=data.x_train[points] if kernel else None,
            seeds=tuple(seeds),
        )

    @cached_property
    def real_optimizer(self) -> optax.GradientTransformation:
        """What the network is really trained with."""
        if self.optimizer is None:
            return self.descent
        if isinstance(self.optimizer, optax.GradientTransformation):
            return self.optimizer
        return self.optimizer(self.rate)

    def _predict(self, linear) -> tuple[np.ndarray, np.ndarray]:
        """Kernel predictions on the test set from each seed's own initial outputs."""
        k_train, k_test = self.kernels
        seeds, outputs = len(linear.train), self.data.y_train.shape[1]
        # One kernel serves all seeds: their outputs stand side by side as columns.
        f0_train, f0_test = (_columns(f[:, 0]) for f in (linear.train, linear.test))
        y = np.tile(np.asarray(self.data.y_train), (1, seeds))
        steps = np.asarray(self.record)
        flow = gradient_flow(k_train, y, k_test, f0_train=f0_train, f0_test=f0_test)
        descent = gradient_descent(
            k_train, y, k_test, learning_rate=self.rate, f0_train=f0_train, f0_test=f0_test
        )

        def by_seed(prediction: Prediction) -> np.ndarray:
            assert prediction.test is not None
            means = np.asarray(prediction.test.mean).reshape(len(steps), -1, seeds, outputs)
            return means.transpose(2, 0, 1, 3)

        times = self.rate * steps.astype(y.dtype)
        return by_seed(flow.at(times)), by_seed(descent.at(steps))

    def _check_divergence(self, linear, network, real, seeds: list[int]) -> None:
        for name, run in (
            ("linearized network", linear),
            ("network under gradient descent", network),
            ("network", real),
        ):
            finite = [np.isfinite(run.loss[i]) & np.isfinite(run.test[i]).all((1, 2))
                      for i in range(len(seeds))]  # fmt: skip
            bad = [s for s, fine in zip(seeds, finite, strict=True) if not fine.all()]
            if bad:
                limit = float(max_learning_rate(self.kernels[0]))
                raise StabilityError(
                    f"training diverged: the {name} of seed {bad[0]} has outputs that are not "
                    f"finite. The learning rate {self.rate:.4g} is below the kernel's limit "
                    f"2 / lambda_max = {limit:.4g}, but this finite network is sharper than its "
                    "kernel, or the optimizer adds to the rate. Use a smaller learning rate. "
                    "Widths and seeds that finished before are kept in the folder, if there is one."
                )


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *trees)


def _columns(f: jax.Array) -> np.ndarray:
    """``(seeds, n, outputs)`` to ``(n, seeds * outputs)``."""
    return np.asarray(f).transpose(1, 0, 2).reshape(f.shape[1], -1)
