"""The error budget: what separates neighbouring descriptions of one training run.

Five stages stand between kernel theory and a trained network, each differing from the one
before in a single respect. The gap between two stages, relative to how far the function moved,
is that respect's share of the error.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compare.data import Data, spread
from ntk_lab.empirical import kernel_evolution
from ntk_lab.empirical.alignment import alignment
from ntk_lab.errors import NumericalError
from ntk_lab.losses import Loss, mean_loss, squared
from ntk_lab.train import Trajectory

GAPS = ("discretization", "finite-width kernel", "feature learning", "optimizer")
INCURABLE = ("discretization", "optimizer")  # no width makes them smaller
TOTAL = "total"
# Beside the budget: how far the network is from its linearization under the same optimizer.
UNDER_OPTIMIZER = "feature learning under the optimizer"
FLOW, DESCENT, LINEAR, NETWORK, REAL = (
    "kernel flow", "kernel descent", "linearized", "network", "optimizer",
)  # fmt: skip
LINEAR_OPTIMIZER = "linearized with the optimizer"
_RUNS = {
    LINEAR: "linearized network",
    NETWORK: "network under gradient descent",
    LINEAR_OPTIMIZER: "linearized network with the optimizer",
    REAL: "network",
}
# A function that moved by fewer roundings than this has gaps of noise.
_ROUNDINGS = 100


class Stages(NamedTuple):
    """What is known of one seed: kernel predictions ``(T, n, C)`` by stage, and recorded runs.

    ``runs`` are trajectories of all seeds by name, of which this is number ``seed``.
    """

    predicted: Mapping[str, np.ndarray]
    runs: Mapping[str, Trajectory]
    seed: int

    @property
    def real(self) -> Trajectory:
        """The network as it was really trained."""
        return self.runs.get(_RUNS[REAL], self.runs[_RUNS[NETWORK]])

    def outputs(self) -> dict[str, np.ndarray]:
        """Test outputs ``(T, n, C)`` of each stage, in the order of the budget."""
        outputs = dict(self.predicted)
        for stage, name in _RUNS.items():
            if name in self.runs:
                test = self.runs[name].test
                assert test is not None
                outputs[stage] = np.asarray(test[self.seed, 1:])
        return outputs


def measure(stages: Stages, data: Data, loss: Loss = squared) -> dict[str, np.ndarray]:
    """All that is recorded of one seed: arrays over the recorded steps.

    Gaps are L2 norms over the test set and outputs, divided by ``|f_t - f_0|`` of the real run.
    Their ``error`` is the standard error from the finite number of test examples, to first order.
    """
    outputs = stages.outputs()
    test = stages.real.test
    assert test is not None
    start, end = (np.asarray(test[stages.seed, part]) for part in (0, slice(1, None)))
    moved = _norm(end - start)
    if not (moved > _ROUNDINGS * np.finfo(end.dtype).eps * _norm(end)).all():
        raise NumericalError(
            "the network's outputs on the test set did not move, or by no more than rounding, "
            "between the start and a recorded step, so no relative gap exists. Raise the learning "
            "rate, record later, or use float64."
        )
    result = {"displacement": moved}
    for name, (before, after) in _gaps(outputs).items():
        result[f"gap/{name}"], result[f"error/{name}"] = _relative(after - before, end - start)
    for name, f in outputs.items():
        result[f"test_loss/{name}"] = _mean_losses(loss, f, data.y_test)
        if data.labels_test is not None:
            result[f"accuracy/{name}"] = (f.argmax(2) == data.labels_test).mean(1)
    return result | _of_the_run(stages, data)


def _gaps(outputs: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Neighbouring stages by the name of the gap between them."""
    ends = {DESCENT: GAPS[0], LINEAR: GAPS[1], NETWORK: GAPS[2], REAL: GAPS[3]}
    if DESCENT not in outputs:  # predictions start from the network's own kernel
        ends[LINEAR] = GAPS[0]
    path = [stage for stage in (FLOW, *ends) if stage in outputs]
    pairs = {ends[after]: (outputs[before], outputs[after]) for before, after in pairwise(path)}
    pairs[TOTAL] = (outputs[path[0]], outputs[path[-1]])
    if LINEAR_OPTIMIZER in outputs:
        pairs[UNDER_OPTIMIZER] = (outputs[LINEAR_OPTIMIZER], outputs[REAL])
    return pairs


def _relative(gap: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``|gap| / |moved|`` over test set and outputs at each time, and its standard error.

    The delta method for the ratio of two means over test examples.
    """
    above, below = ((np.asarray(f, np.float64) ** 2).sum(axis=2) for f in (gap, moved))
    total = below.sum(axis=1, keepdims=True)
    ratio = np.sqrt(above.sum(axis=1) / total[:, 0])
    square = above.sum(axis=1, keepdims=True)
    shares = above / np.where(square > 0, square, 1) - below / total
    return ratio, 0.5 * ratio * np.sqrt((shares**2).sum(axis=1))


def _mean_losses(loss: Loss, f: np.ndarray, y: jax.Array) -> np.ndarray:
    return np.asarray([mean_loss(loss, jnp.asarray(at), y) for at in f])


def _of_the_run(stages: Stages, data: Data) -> dict[str, np.ndarray]:
    """How the real run's kernel and parameters move, and its training loss."""
    run, s = stages.real, stages.seed
    assert run.ntk is not None
    kernels = np.asarray(run.ntk[s])
    drift = _norm(kernels[1:] - kernels[0]) / _norm(kernels[0])
    y = np.asarray(data.y_train)[spread(len(data.y_train), kernels.shape[-1])]
    curvature = {}
    if run.sharpness is not None and run.top_ntk is not None:
        curvature["sharpness/of the loss"] = np.asarray(run.sharpness[s, 1:])
        curvature["sharpness/of the kernel"] = np.asarray(run.top_ntk[s, 1:])
    evolution = kernel_evolution(kernels, targets=y, k=min(y.shape[1], len(y) - 1))
    return curvature | {
        "kernel/CKA with the start": evolution.cka[0, 1:],
        "kernel/overlap of top eigenvectors": evolution.overlap[0, 1:],
        "kernel/effective rank": evolution.effective_rank[1:],
        "kernel/largest eigenvalue, relative": evolution.growth[1:, 0],
        "drift": drift,
        "alignment": np.asarray([alignment(k, y @ y.T) for k in kernels[1:]]),
        "motion": np.asarray(run.motion[s, 1:]),
        "train_loss": np.asarray(run.loss[s, 1:]),
    }


def _norm(f: np.ndarray) -> np.ndarray:
    return np.sqrt((np.asarray(f, np.float64) ** 2).sum(axis=(-2, -1)))
