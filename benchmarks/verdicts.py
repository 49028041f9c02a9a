"""Does kernel regression predict training? A budget for three data sets, networks and more.

``python benchmarks/verdicts.py`` runs ``ntk.compare`` on 3 data sets x 3 architectures x 4
parameterizations, saves ``benchmarks/results/verdicts.json`` after each, and writes
docs/verdicts.md with its figure. It goes on where it was interrupted: cells that are saved are not
run again, nor are finished seeds of the one that was cut off (in ``reports/verdicts``).
``--only digits MLP`` runs those of both names, ``--again`` runs also what is saved, ``--table``
only writes the page, ``--check`` says with exit code 1 whether the page is out of date.
"""

import argparse
import json
import sys
import time
from typing import Any

import jax
import numpy as np

import harness
import ntk_lab as ntk
from ntk_lab.compare.budget import TOTAL
from ntk_lab.compare.text import horizon_text, required_width_text, verdict_text
from verdict_page import figure, page

nn = ntk.nn
RESULTS = harness.RESULTS / "verdicts.json"
DOCS = harness.RESULTS.parent.parent / "docs"
CELLS = harness.RESULTS.parent.parent / "reports" / "verdicts"

EXAMPLES, SEEDS, STEPS = 96, 3, 300
RATE = 0.15  # of the least stability limit of the widths' kernels
SAFE = 0.9  # of the stability limit of a narrow network itself
SCALES = {"w_std": 2**0.5, "b_std": 0.1}
DATA = {"digits": ntk.data.digits, "MNIST-5k": ntk.data.mnist_5k, "mnist1d": ntk.data.mnist1d}
# Side of the patches that attention sees as positions: 16, 16 and 8 of them.
PATCH = {"digits": (2, 2), "MNIST-5k": (7, 7), "mnist1d": (5,)}
WIDTHS = {"MLP": (32, 128, 512), "CNN": (16, 48, 128), "attention": (16, 48, 128)}
PARAMETERIZATIONS = ("ntk", "standard", "mean_field", "mup")
Key = tuple[str, str, str]


def network(architecture: str, data: str) -> nn.Sequential:
    """A small classifier into 10 classes; ``compare`` sets its widths."""
    patch, width = PATCH[data], WIDTHS[architecture][0]
    readout = nn.Dense(10, b_std=0.1)
    if architecture == "MLP":
        hidden = [nn.Dense(width, **SCALES), nn.Relu()]
        return nn.Sequential(nn.Flatten(), *hidden, *hidden, readout)
    if architecture == "CNN":
        # 4 x 4 positions are left of images, 20 of sequences.
        large = data == "MNIST-5k"
        first, strides = ((5, 5), (4, 4)) if large else ((3,) * len(patch), (2,) * len(patch))
        second = {"window": (3,) * len(patch), "strides": (2, 2) if large else None}
        layers = [nn.Conv(width, first, strides=strides, padding="SAME", **SCALES), nn.Relu()]
        layers += [nn.Conv(width, **second, padding="SAME", **SCALES), nn.Relu()]
        return nn.Sequential(*layers, nn.GlobalAvgPool(), readout)
    return nn.Sequential(
        nn.Conv(width, patch, strides=patch, padding="VALID", **SCALES),
        nn.Relu(),
        nn.GlobalSelfAttention(
            width, heads=4, w_value_std=2**0.5, b_std=0.1, pos_emb="sum", w_pos_emb_std=0.5
        ),
        nn.Relu(),
        nn.GlobalAvgPool(),
        readout,
    )


def measure(data: str, architecture: str, parameterization: str) -> dict[str, Any]:
    """Compare, and what the table and the figure need of it."""
    start = time.perf_counter()
    c, slower = _stable(data, architecture, parameterization)
    print(c.conclusion(), flush=True)
    widest, last = c.widths[-1], c.steps[-1]
    verdict = c.verdicts[widest, last]
    return {
        "data": data,
        "architecture": architecture,
        "parameterization": parameterization,
        "widths": list(c.widths),
        "total": _by_width(c.gap(TOTAL)),
        "gaps": {gap: _by_width(c.gap(gap)) for gap in c.gaps},
        "drift": _by_width(c.measures["drift"]),
        "verdicts": [c.verdicts[w, last].status for w in c.widths],
        "interval": [verdict.lower, verdict.upper],
        "words": verdict_text(c, widest, last),
        "dominant": c.dominant(widest, last),
        "exponents": {k: None if e is None else list(e) for k, e in c.exponents().items()},
        "required_width": required_width_text(c.required_width(), c.confidence),
        "horizon": horizon_text(c, widest),
        "accuracy": {
            name.partition("/")[2]: float(values[-1, :, -1].mean())
            for name, values in c.measures.items()
            if name.startswith("accuracy/")
        },
        "tolerance": c.tolerance,
        "slower": slower,
        "time": float(c.times[-1]),
        "seconds": time.perf_counter() - start,
    }


def _stable(data: str, architecture: str, parameterization: str) -> tuple[ntk.Comparison, int]:
    """The comparison, in as many times more and smaller steps as keep all its networks stable."""
    split = DATA[data](train=EXAMPLES, test=EXAMPLES)
    widths = WIDTHS[architecture]
    net = network(architecture, data).with_parameterization(parameterization)
    rate = RATE * min(_limit(net.with_width(w), split.train[0]) for w in widths)
    slower, own = 1, _own_limit(net.with_width(min(widths)), split.train[0])
    while rate / slower > SAFE * own:
        slower *= 2
    c = ntk.compare(
        net, *split, widths=widths, seeds=SEEDS, steps=STEPS * slower, learning_rate=rate / slower,
        folder=CELLS / f"{data}-{architecture}-{parameterization}",
    )  # fmt: skip
    return c, slower


def _own_limit(net: nn.Sequential, x: Any) -> float:
    """The least of the networks that ``compare`` draws: many times sharper, if they are narrow."""
    drawn = [
        net.init(jax.random.fold_in(jax.random.key(0), seed), x.shape[1:]) for seed in range(SEEDS)
    ]
    kernels = (ntk.empirical.ntk(net.apply, params, x, outputs="full") for params in drawn)
    return min(map(_rate, kernels)) / net.learning_rate_scale()


def _limit(net: nn.Sequential, x: Any) -> float:
    """Of stability, as a learning rate that compare takes; with ``mup`` it depends on width."""
    return _rate(net.kernel(x).ntk) / net.learning_rate_scale()


def _rate(kernel: Any) -> float:
    return float(ntk.predict.max_learning_rate(kernel))


def _by_width(values: np.ndarray) -> list[list[float]]:
    """Mean over seeds and its standard error at the last step, for each width."""
    last = values[:, :, -1]
    errors = last.std(axis=1, ddof=1) / last.shape[1] ** 0.5
    return [[float(m), float(e)] for m, e in zip(last.mean(axis=1), errors, strict=True)]


def cells() -> list[Key]:
    """All of them, in the order of the table."""
    return [(d, a, p) for d in DATA for a in WIDTHS for p in PARAMETERIZATIONS]


def run(only: list[str], again: bool) -> None:
    """Measure what is missing, and save after each cell."""
    found = {_key(row): row for row in _saved()["rows"]} if RESULTS.exists() else {}
    for cell in sorted(cells(), key=lambda cell: list(WIDTHS).index(cell[1])):
        there = cell in found and found[cell]["widths"] == list(WIDTHS[cell[1]])
        if not set(only) <= set(cell) or (there and not again):
            continue
        print("\n" + ", ".join(cell), flush=True)
        found[cell] = measure(*cell)
        record = {
            "name": "verdicts",
            "settings": {"examples": EXAMPLES, "seeds": SEEDS, "steps": STEPS, "rate": RATE},
            "machine": harness.machine(),
            "versions": harness.versions(),
            "rows": [found[c] for c in cells() if c in found],
        }
        RESULTS.write_text(json.dumps(_short(record), indent=1) + "\n", encoding="utf-8")


def _short(value: Any) -> Any:
    """Four digits, also inside lists."""
    if isinstance(value, list):
        return [_short(item) for item in value]
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return harness.rounded(value)


def _key(row: dict[str, Any]) -> Key:
    return row["data"], row["architecture"], row["parameterization"]


def _saved() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Budgets of 36 trained networks.")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not options.table and not options.check:
        run(options.only, options.again)
    text, path = page(_saved()), DOCS / "verdicts.md"
    if options.check:
        return int(text != path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    figure(_saved()["rows"]).savefig(DOCS / "verdicts.png", dpi=90)
    return 0


if __name__ == "__main__":
    sys.exit(main())
