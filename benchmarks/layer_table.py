"""Measure every layer, and write docs/layers.md from what was measured.

``python benchmarks/layer_table.py`` measures all layers in two processes, saves
``benchmarks/results/layers.json`` and rewrites the table. ``--only NAME ...`` measures some rows
again and keeps the others; ``--table`` only rewrites the table; ``--check`` writes nothing, and
the exit code is 1 if the table is out of date.
"""

import argparse
import datetime
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import harness
from layer_cases import CASES

RESULTS = harness.RESULTS / "layers.json"
TABLE = harness.RESULTS.parent.parent / "docs" / "layers.md"

TEXT = """\
# Every layer, measured

<!-- Written by benchmarks/layer_table.py from benchmarks/results/layers.json; do not edit. -->

Each layer of `ntk_lab.nn` in a small network with one or two more hidden layers
([`benchmarks/layer_cases.py`](../benchmarks/layer_cases.py)). Five examples, unless said otherwise:
two random ones, a near-duplicate of the first, the antipode of the second, and zero.

- **z NNGP, z NTK**: random finite networks against the infinite-width kernel. The mean over
  networks of the two largest widths, extrapolated to remove the term in 1/width, minus the kernel,
  in standard errors; the largest of all 25 entries. Below 4.5 by chance in all but one row in
  several thousand.
- **sees**: the largest standard error of that mean, relative to the largest entry of the kernel. A
  deviation a few times this size would have been found.
- **slope**: power of the width with which one network's NTK approaches the infinite one (root mean
  square deviation over networks and entries; three widths, 16 to 256, for attention 16 to 144; a
  correction in 1/width is fitted). Theory says -1/2.
- **golden**: largest error against the stored kernels of neural-tangents 0.6.5 (of 300-node
  quadrature for tanh) over all stored architectures with this layer, in float64, relative to the
  largest entry. In brackets, at near-coincident points, where these references are themselves
  inexact (by 1e-9 to 1e-4): it measures the reference.
- **float32**: largest `|k32 - k64| / sqrt(k11 k22)`, of NNGP and NTK, on inputs that float32 has
  exactly. Largest where an activation follows at variances of 100 (`Monomial`, `GlobalSumPool`):
  slopes at near-duplicates then depend on an angle that sums and powers do not keep exactly.
- **gradient in x, in scales**: `jax.grad` of a random combination of all entries of both kernels
  against central differences along a random direction, in float64, relative, at random inputs; in
  the inputs, and in `w_std`, `b_std` and all parameters of layers that can be differentiated.
- **finite**: whether these gradients are finite where an input is repeated, negated or zero, with
  and without biases.

Layers with a finite half alone have gradients and float32 errors of a network's outputs instead
(gradients in weights under "in scales").
"""

COLUMNS = (
    "layer",
    "z NNGP",
    "z NTK",
    "sees",
    "slope",
    "golden",
    "float32",
    "gradient in x",
    "in scales",
    "finite",
)


def measure_all(only: list[str]) -> list[str]:
    """Measure those rows, or all; save each as it is there. Returns what could not be measured."""
    names = [case.name for case in CASES]
    if set(only) - set(names):
        raise SystemExit(f"no case is called {', '.join(sorted(set(only) - set(names)))}.")
    from layer_measurements import golden, measure, stored_cases

    rows, stored, failed = {}, {}, []
    if only:
        saved = json.loads(RESULTS.read_text(encoding="utf-8"))
        rows = {row["name"]: row for row in saved["rows"]}
        stored = {row["case"]: row for row in saved["stored"]}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        jobs = {pool.submit(measure, name): name for name in only or names}
        if not only:
            jobs |= {pool.submit(golden, name): name for name in stored_cases()}
        for done, job in enumerate(as_completed(jobs), 1):
            name = jobs[job]
            if job.exception() is not None:
                print(f"[{done}/{len(jobs)}] {name}: {job.exception()!r}", flush=True)
                failed.append(name)
                continue
            result = harness.rounded(job.result())
            (stored if "case" in result else rows)[name] = result
            _save([rows[n] for n in names if n in rows], [stored[n] for n in sorted(stored)])
            print(f"[{done}/{len(jobs)}] {name}: {_summary(result)}", flush=True)
    return failed


def _save(rows: list[dict[str, Any]], stored: list[dict[str, Any]]) -> None:
    record = {
        "name": "layers",
        "measured": datetime.date.today().isoformat(),
        "machine": harness.machine(),
        "versions": harness.versions(),
        "rows": rows,
        "stored": stored,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    RESULTS.write_text(text, encoding="utf-8")


def _summary(row: dict[str, Any]) -> str:
    hidden = ("name", "layer", "group", "widths", "seeds", "case", "layers", "kind")
    return ", ".join(f"{k} {_number(v)}" for k, v in row.items() if k not in hidden)


def golden_errors(record: dict[str, Any], name: str) -> tuple[float | None, float | None]:
    """Largest errors over all stored architectures with that layer: exact, reference-limited."""
    with_layer = [row for row in record["stored"] if name in row["layers"]]
    return tuple(
        max((row[key] for row in with_layer if row[key] is not None), default=None)
        for key in ("exact", "limited")
    )


def markdown(record: dict[str, Any]) -> str:
    parts = [TEXT]
    for group in dict.fromkeys(row["group"] for row in record["rows"]):
        parts.append(f"\n## {group[0].upper()}{group[1:]}\n")
        parts += [_line(COLUMNS), _line(["---"] + ["---:"] * (len(COLUMNS) - 1))]
        parts += [_row(record, row) for row in record["rows"] if row["group"] == group]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    machine = record["machine"]
    parts.append(
        f"\n{sum(row['seconds'] for row in record['rows']) / 60:.0f} minutes of computing on "
        f"{machine['cores']} cores of {machine['cpu']}; {versions}; measured {record['measured']}."
    )
    return "\n".join(parts) + "\n"


def _row(record: dict[str, Any], row: dict[str, Any]) -> str:
    variant = row["name"].removeprefix(row["layer"])
    remark = "" if row["kind"] == "pair" else f" ({row['kind']})"
    exact, limited = golden_errors(record, row["name"])
    golden = _number(exact) + ("" if limited is None else f" ({_number(limited)})")
    slope = "-"
    if "slope" in row:
        slope = f"{row['slope']:.2f} ± {row['slope_error']:.2f}"
    cells = [
        f"`{row['layer']}`{variant}{remark}",
        *(f"{row[key]:.1f}" if key in row else "-" for key in ("z_nngp", "z_ntk")),
        f"{100 * row['resolution']:.1f}%" if "resolution" in row else "-",
        slope,
        golden,
        *(
            _number(row[key])
            for key in ("float32_error", "gradient_error_inputs", "gradient_error_scales")
        ),
        "yes" if row["gradients_finite"] else "no",
    ]
    return _line(cells)


def _line(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float) or value == 0:
        return str(value)
    return f"{value:.1e}".replace("e-0", "e-") if value < 0.01 else f"{value:.3g}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure every layer; write docs/layers.md.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="rows to measure")
    parser.add_argument("--table", action="store_true", help="only rewrite the table")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    options = parser.parse_args(arguments)
    if not options.table and not options.check:
        failed = measure_all(options.only)
        if failed:
            print(f"Not measured: {', '.join(failed)}.")
            return 1
    new = markdown(json.loads(RESULTS.read_text(encoding="utf-8")))
    if TABLE.is_file() and TABLE.read_text(encoding="utf-8") == new:
        print("docs/layers.md is up to date.")
        return 0
    if options.check:
        print("docs/layers.md is out of date: run `python benchmarks/layer_table.py --table`.")
        return 1
    TABLE.write_text(new, encoding="utf-8")
    print("docs/layers.md was rewritten.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
