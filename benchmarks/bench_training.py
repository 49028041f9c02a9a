"""Claim: one experiment is four times faster than the straightforward way.

The experiment: Relu networks with two hidden layers of 64 to 1024 on 256 of scikit-learn's digits,
8 seeds, 2000 steps of full-batch gradient descent; recorded at 17 log-spaced steps are outputs on
256 training and 256 test examples, the loss, and the NTK on 24 points; beside them the linearized
networks, and what the infinite-width kernel predicts for each seed. It is what ``ntk.compare``
runs.

The straightforward way, jitted throughout: a Python loop over seeds and steps around an update
with optax, for the networks and for their linearization by neural-tangents; its empirical kernel
at recorded steps; its kernel and ``predict.gradient_descent_mse`` for predictions.

Numbers are seconds on the wall, of the whole experiment, on a machine that does nothing else: that
small operations of a loop leave cores idle is part of what it costs. The ratio of processor times,
all threads together, stands beside them. Each part is measured over fewer steps and
seeds (columns of the result) and scaled; the floor of the networks is their multiply-adds at the
rate of a large matrix product. ``python bench_training.py [width ...] [--only PART]`` measures
some, and keeps the rows of others.
"""

import argparse
import statistics
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import harness
import ntk_lab as ntk
from ntk_lab.interop import neural_tangents
from ntk_lab.train import ensemble, linearized_descent, log_spaced

SEEDS, STEPS, RATE, POINTS = 8, 2000, 0.05, 24
# What is measured of networks, seeds and steps, and steps of the rival's linearized ones. Networks
# of 64 are trained several seeds at once, others one on each core.
MEASURED = {
    64: (8, 600, 150),
    128: (2, 600, 100),
    256: (2, 200, 50),
    512: (2, 180, 25),
    1024: (2, 60, 10),
}
RUNS = 3
PARTS = ("networks", "linearized networks", "NTK along training")
RECORD = (0, *log_spaced(STEPS, 16))
EXPERIMENT = "the whole experiment"
PREDICTIONS = "infinite-width predictions"


class Problem:
    """Data, network and initial parameters of one width."""

    def __init__(self, width: int, seeds: int):
        (x, y), (x_test, _) = ntk.data.digits(train=256, test=256)
        self.x, self.x_test = jnp.asarray(x), jnp.asarray(x_test)
        self.y = jax.nn.one_hot(y, 10) - 0.1
        hidden = [ntk.nn.Dense(width, w_std=2**0.5, b_std=0.1), ntk.nn.Relu()]
        self.net = ntk.nn.Sequential(
            ntk.nn.Flatten(), *hidden, *hidden, ntk.nn.Dense(10, b_std=0.1)
        )
        self.f, self.optimizer = self.net.apply, optax.sgd(RATE)
        keys = jax.random.split(jax.random.key(0), seeds)
        self.params = jax.vmap(lambda key: self.net.init(key, x.shape[1:]))(keys)
        self.points = self.x[:POINTS]
        self.width, self.seeds = width, seeds

    def seed(self, i: int) -> Any:
        """Initial parameters of one seed."""
        return jax.tree.map(lambda p: p[i], self.params)

    def operations(self) -> float:
        """Of all steps of all seeds: three products a layer, but for the first two."""
        sizes = [64, self.width, self.width, 10]
        products = [3 * a * b for a, b in pairwise(sizes)]
        return 2.0 * len(self.x) * (sum(products) - sizes[0] * sizes[1]) * SEEDS * STEPS


def straightforward(p: Problem, steps: int, linearized: bool) -> Any:
    """Loops over seeds and steps around a jitted update; outputs and loss at the end."""
    nt = neural_tangents.load()

    def model(params0: Any) -> Any:
        return nt.linearize(p.f, params0) if linearized else p.f

    def loss(params, params0):
        return jnp.sum((model(params0)(params, p.x) - p.y) ** 2) / (2 * len(p.x))

    @jax.jit
    def update(params, state, params0):
        gradient = jax.grad(loss)(params, params0)
        updates, state = p.optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def look(params, params0):
        f = model(params0)
        return f(params, p.x), f(params, p.x_test), loss(params, params0)

    def run() -> list[Any]:
        seen = []
        for i in range(p.seeds):
            params0 = params = p.seed(i)
            state = p.optimizer.init(params)
            for _ in range(steps):
                params, state = update(params, state, params0)
            seen.append([np.asarray(v) for v in look(params, params0)])
        return seen

    return run


def networks(width: int) -> harness.Row:
    """Training itself."""
    seeds, steps, _ = MEASURED[width]
    p = Problem(width, seeds)

    def train():
        return ensemble(
            p.f, p.params, p.x, p.y, p.x_test, optimizer=p.optimizer, steps=steps, record=(steps,)
        )

    row = race(width, PARTS[0], train, straightforward(p, steps, False))
    scale, floor = SEEDS / seeds * STEPS / steps, 1e3 * p.operations() / rate()
    return scaled(row, scale, seeds=seeds, steps=steps, floor_ms=floor)


def linearized(width: int) -> harness.Row:
    """The linearized networks: ours goes all steps at once."""
    p, few = Problem(width, 1), MEASURED[width][2]

    def linear():
        return linearized_descent(
            p.f, p.params, p.x, p.y, p.x_test, learning_rate=RATE, steps=STEPS, record=RECORD
        )

    row = race(width, PARTS[1], linear, straightforward(p, few, True))
    return scaled(row, SEEDS, SEEDS * STEPS / few, seeds=1, steps=few)


def kernels(width: int) -> harness.Row:
    """The NTK at recorded steps."""
    nt, p = neural_tangents.load(), Problem(width, 1)
    kernel_fn = jax.jit(nt.empirical_ntk_fn(p.f, trace_axes=(-1,), vmap_axes=0))
    params = p.seed(0)
    row = race(
        width,
        PARTS[2],
        lambda: ntk.empirical.ntk(p.f, params, p.points, outputs="trace"),
        lambda: kernel_fn(p.points, None, params),
    )
    return scaled(row, len(RECORD) * SEEDS, seeds=1)


def race(width: int, part: str, ours: Any, rival: Any) -> harness.Row:
    """By the clock on the wall, with the ratio of processor times beside it."""
    return harness.race(f"width {width}, {part}", ours, rival, runs=RUNS, processor=True)


def predictions() -> harness.Row:
    """The infinite-width kernel and what it predicts for every seed at the recorded steps."""
    p = Problem(64, SEEDS)
    nt, times = neural_tangents.load(), RATE * np.asarray(RECORD, np.float32)
    stax = nt.stax
    dense, outputs = [stax.Dense(512, 2**0.5, 0.1), stax.Relu()], p.y.shape[1]
    kernel_fn = stax.serial(stax.Flatten(), *dense, *dense, stax.Dense(outputs, 1.0, 0.1))[2]
    both = jax.jit(lambda a, b: kernel_fn(a, b, "ntk"))
    f0, g0 = (jax.vmap(p.f, (0, None))(p.params, x) for x in (p.x, p.x_test))

    def ours():
        k, k_test = p.net.kernel(p.x).ntk, p.net.kernel(p.x_test, p.x).ntk
        f, g = (jnp.moveaxis(a, 0, 1).reshape(len(a[0]), -1) for a in (f0, g0))
        y = jnp.tile(p.y, (1, SEEDS))
        flow = ntk.predict.gradient_flow(k, y, k_test, f0_train=f, f0_test=g).at(times)
        return flow.test.mean

    def rival():
        k, k_test = both(p.x, None), both(p.x_test, p.x)
        with neural_tangents.relaxed_promotion():
            predict = nt.predict.gradient_descent_mse(k, p.y)
            # Its loss is also a mean over outputs.
            return [predict(outputs * times, f0[i], g0[i], k_test)[1] for i in range(SEEDS)]

    one = np.asarray(ours()).reshape(len(times), -1, SEEDS, outputs).transpose(2, 0, 1, 3)
    other = np.stack([np.asarray(v) for v in rival()])
    error = float(np.abs(one - other).max() / np.abs(other).max())
    return harness.race(PREDICTIONS, ours, rival, runs=RUNS, processor=True, difference=error)


def rate() -> float:
    """Operations of a large matrix product in a second, all cores."""
    a = jnp.ones((2048, 2048), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    samples = []
    for _ in range(5):
        start = time.perf_counter()
        product(a).block_until_ready()
        samples.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(samples)


def scaled(row: harness.Row, ours: float, rival: float | None = None, **extra: Any) -> harness.Row:
    """A row of part of the work, as of all of it; ``rival`` where its part is another one."""
    assert row.rival_ms is not None
    rival = ours if rival is None else rival
    ratios = {
        name: getattr(row, name) * rival / ours for name in ("ratio", "ratio_low", "ratio_high")
    }
    times = {"ours_ms": row.ours_ms * ours, "rival_ms": row.rival_ms * rival}
    processor = {
        "processor_ms": row.extra["processor_ms"] * ours,
        "processor_ratio": row.extra["processor_ratio"] * rival / ours,
    }
    return replace(row, **times, **ratios, extra=row.extra | processor | extra)


def together(case: str, rows: list[harness.Row]) -> harness.Row:
    """The sum of some rows."""

    def total(name: str) -> float:
        return sum(getattr(row, name) for row in rows)

    ours = total("ours_ms")
    ratios = {
        name: sum(row.ours_ms * getattr(row, name) for row in rows) / ours
        for name in ("ratio_low", "ratio_high")
    }
    times = {
        name: total(name)
        for name in (
            "ours_ms", "rival_ms", "ours_first_s", "rival_first_s", "ours_compile_s",
            "rival_compile_s",
        )
    }  # fmt: skip
    used = sum(row.extra["processor_ms"] for row in rows)
    theirs = sum(row.extra["processor_ms"] * row.extra["processor_ratio"] for row in rows)
    extra = {"processor_ms": used, "processor_ratio": theirs / used}
    ratio = times["rival_ms"] / ours
    return harness.Row(case, runs=RUNS, ratio=ratio, extra=extra, **times, **ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description="An experiment against loops over steps.")
    parser.add_argument("widths", nargs="*", type=int, default=list(MEASURED))
    parser.add_argument("--only", choices=[*PARTS, PREDICTIONS], action="append")
    options = parser.parse_args()
    chosen = options.only or [*PARTS, PREDICTIONS]
    cases = [f"width {w}, {part}" for w in MEASURED for part in PARTS]
    settings: dict[str, Any] = {
        "claim": "an experiment is four times faster than loops over seeds and steps (five was "
        "aimed at)",
        "rival": "loops with neural-tangents",
        "order": [*cases, PREDICTIONS, *(f"all widths, {part}" for part in PARTS), EXPERIMENT],
    }
    for width in options.widths:
        for part, measure in zip(PARTS, (networks, linearized, kernels), strict=True):
            if part in chosen:
                harness.save("training", [measure(width)], **settings)
    if PREDICTIONS in chosen:
        harness.save("training", [predictions()], **settings)
    saved = {row.case: row for row in harness.load("training")}
    if all(case in saved for case in [*cases, PREDICTIONS]):
        sums = [
            together(f"all widths, {part}", [saved[f"width {w}, {part}"] for w in MEASURED])
            for part in PARTS
        ]
        sums.append(together(EXPERIMENT, [saved[c] for c in [*cases, PREDICTIONS]]))
        harness.save("training", sums, **settings)


if __name__ == "__main__":
    main()
