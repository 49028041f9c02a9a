"""Made-up comparisons: every shape of result without training anything."""

import numpy as np

from ntk_lab import nn
from ntk_lab.compare import Comparison


def comparison(
    widths=(8, 16),
    seeds=3,
    steps=(1, 3, 10),
    *,
    optimizer=False,
    classes=True,
    size=0.3,
    name="ntk",
):
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Flatten(), nn.Dense(widths[0]), nn.Relu(), nn.Dense(3))
    shape = (len(widths), seeds, len(steps))
    by_width = (np.asarray(widths, float) / widths[0]) ** -0.5

    def values(scale):
        return scale * by_width[:, None, None] * rng.uniform(0.95, 1.05, shape)

    causes = {"discretization": 0.02, "finite-width kernel": 0.9, "feature learning": 0.4}
    predictors = ["kernel flow", "kernel descent", "linearized", "network"]
    if optimizer:
        causes["optimizer"] = 0.2
        predictors.append("optimizer")
    measures = {f"gap/{cause}": values(size * share) for cause, share in causes.items()}
    measures["gap/total"] = values(size)
    for predictor in predictors:
        measures[f"test_loss/{predictor}"] = values(0.4)
        if classes:
            measures[f"accuracy/{predictor}"] = rng.uniform(0.5, 0.9, shape)
    for extra in ("displacement", "drift", "alignment", "motion", "train_loss"):
        measures[extra] = values(0.2)
    settings = {
        "net": net.to_json(),
        "parameterization": name,
        "learning_rate": 0.1,
        "learning_rate_of_width": [0.1] * len(widths),
        "stability_limit": 2.0,
        "train": 24,
        "test": 30,
        "batch_size": 8 if optimizer else None,
        "optimizer": optimizer,
        "key": 0,
    }
    times = 0.1 * np.asarray(steps, float)
    return Comparison(measures, widths, tuple(range(seeds)), steps, times, settings, 0.1, 0.95)
