"""Running every width and seed of a comparison: from disk where finished, reported as it goes."""

from collections.abc import Callable, Sequence

import numpy as np

from ntk_lab.compare.checkpoint import Checkpoint
from ntk_lab.compare.experiment import Experiment
from ntk_lab.progress import Progress

# Seeds of small networks are trained together; larger ones fewer at a time, so that finished
# work is kept and reported often.
_PARAMETERS_AT_ONCE = 1_500_000
# Compiling for one width takes as long as training with so many parameters x examples x steps.
_OVERHEAD = 2e10

Report = Callable[[Progress], None] | None


def run_all(
    experiments: Sequence[Experiment],
    widths: Sequence[int],
    seeds: int,
    checkpoint: Checkpoint | None,
    progress: Report,
) -> dict[str, np.ndarray]:
    """Measures ``(widths, seeds, steps)`` by name; finished seeds are kept in the checkpoint."""
    found = {
        (w, s): checkpoint.load(w, s) if checkpoint else None for w in widths for s in range(seeds)
    }
    costs = {
        w: e.parameters * e.record[-1] * len(e.data.x_train) + _OVERHEAD / seeds
        for w, e in zip(widths, experiments, strict=True)
    }
    total = float(sum(costs[w] for w, s in found))
    done = float(sum(costs[w] for (w, s), r in found.items() if r is not None))
    for width, experiment in zip(widths, experiments, strict=True):
        left = [s for s in range(seeds) if found[width, s] is None]
        size = max(1, _PARAMETERS_AT_ONCE // experiment.parameters)
        for part in (left[i : i + size] for i in range(0, len(left), size)):
            if progress is not None:
                span = f"seed {part[0]}" if len(part) == 1 else f"seeds {part[0]} to {part[-1]}"
                progress(Progress(done, total, f"width {width}, {span}"))
            for seed, result in zip(part, experiment.run(part), strict=True):
                found[width, seed] = result
                if checkpoint is not None:
                    checkpoint.save(width, seed, result)
            done += costs[width] * len(part)
    if progress is not None:
        progress(Progress(total, total, "done"))
    results = [[found[w, s] or {} for s in range(seeds)] for w in widths]
    return {
        k: np.asarray([[r[k] for r in of_width] for of_width in results]) for k in results[0][0]
    }
