"""The error budget: what separates neighbouring descriptions of one training run.

Five stages stand between kernel theory and a trained network, each differing from the one
before in a single respect. The gap between two stages, relative to how far the function moved,
is that respect's share of the error.
"""

from typing import Any, NamedTuple

import numpy as np

from ntk_lab.compare.data import Data, spread
from ntk_lab.empirical.alignment import alignment
from ntk_lab.errors import NumericalError

GAPS = ("discretization", "finite-width kernel", "feature learning", "optimizer")
INCURABLE = ("discretization", "optimizer")  # no width makes them smaller
TOTAL = "total"
# A function that moved by fewer roundings than this has gaps of noise.
_ROUNDINGS = 100


class Stages(NamedTuple):
    """Test outputs along one run: kernel predictions ``(T, n, C)`` and recorded trajectories."""

    flow: np.ndarray
    descent: np.ndarray
    linear: Any
    network: Any
    real: Any
    seed: int


def measure(stages: Stages, data: Data, *, optimizer: bool) -> dict[str, np.ndarray]:
    """All that is recorded of one seed: arrays over the recorded steps.

    Gaps are L2 norms over the test set and outputs, divided by ``|f_t - f_0|`` of the real run.
    ``optimizer`` says whether the real run differs from full-batch gradient descent.
    """
    s = stages.seed
    start = np.asarray(stages.real.test[s, 0])
    outputs = {
        "kernel flow": stages.flow,
        "kernel descent": stages.descent,
        "linearized": np.asarray(stages.linear.test[s, 1:]),
        "network": np.asarray(stages.network.test[s, 1:]),
    }
    if optimizer:
        outputs["optimizer"] = np.asarray(stages.real.test[s, 1:])
    end = np.asarray(stages.real.test[s, 1:])
    moved = _norm(end - start)
    if not (moved > _ROUNDINGS * np.finfo(end.dtype).eps * _norm(end)).all():
        raise NumericalError(
            "the network's outputs on the test set did not move, or by no more than rounding, "
            "between the start and a recorded step, so no relative gap exists. Raise the learning "
            "rate, record later, or use float64."
        )
    path = list(outputs.values())
    result = {"displacement": moved}
    for name, before, after in zip(GAPS, path[:-1], path[1:], strict=False):
        result[f"gap/{name}"] = _norm(after - before) / moved
    result[f"gap/{TOTAL}"] = _norm(path[-1] - path[0]) / moved
    for name, f in outputs.items():
        result[f"test_loss/{name}"] = ((f - np.asarray(data.y_test)) ** 2).sum((1, 2)) / (
            2 * len(start)
        )
        if data.labels_test is not None:
            result[f"accuracy/{name}"] = (f.argmax(2) == data.labels_test).mean(1)
    return result | _of_the_run(stages, data)


def _of_the_run(stages: Stages, data: Data) -> dict[str, np.ndarray]:
    """Kernel drift, alignment, parameter motion and training loss of the real run."""
    run, s = stages.real, stages.seed
    kernels = np.asarray(run.ntk[s])
    drift = _norm(kernels[1:] - kernels[0]) / _norm(kernels[0])
    y = np.asarray(data.y_train)[spread(len(data.y_train), kernels.shape[-1])]
    return {
        "drift": drift,
        "alignment": np.asarray([alignment(k, y @ y.T) for k in kernels[1:]]),
        "motion": np.asarray(run.motion[s, 1:]),
        "train_loss": np.asarray(run.loss[s, 1:]),
    }


def _norm(f: np.ndarray) -> np.ndarray:
    return np.sqrt((np.asarray(f, np.float64) ** 2).sum(axis=(-2, -1)))
