"""docs/layers.md has every layer, is what was measured, and what was measured is right."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ntk_lab import nn

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
ROWS = {
    row["name"]: row
    for row in json.loads((BENCHMARKS / "results" / "layers.json").read_text("utf-8"))["rows"]
}
# Base classes, not layers.
ABSTRACT = {"Module", "Activation"}


def of_kind(*kinds):
    return [name for name, row in ROWS.items() if row["kind"] in kinds]


def test_every_layer_is_a_case_and_every_case_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from layer_cases import CASES

    assert [case.name for case in CASES] == list(ROWS)
    for case in CASES:
        assert case.kind == ROWS[case.name]["kind"]
        assert case.float32_limit == ROWS[case.name]["float32_limit"]
    exported = {
        name
        for name in nn.__all__
        if inspect.isclass(getattr(nn, name)) and issubclass(getattr(nn, name), nn.Module)
    }
    assert exported - ABSTRACT - {case.layer for case in CASES} == set()


def test_the_table_is_what_was_measured():
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "layer_table.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", of_kind("pair"))
def test_finite_networks_have_the_kernel_as_limit(name):
    row = ROWS[name]
    # Of some thousand correlated normal numbers in all; one in 10^5 exceeds 4.5.
    assert max(row["z_nngp"], row["z_ntk"]) < 4.5
    assert row["resolution"] < 0.05
    assert abs(row["slope"] + 0.5) < 4 * row["slope_error"]
    assert row["slope_error"] < 0.15


@pytest.mark.parametrize("name", ROWS)
def test_gradients_and_single_precision_are_right(name):
    row = ROWS[name]
    for error in (row["gradient_error_inputs"], row["gradient_error_scales"]):
        assert error is None or error < 1e-5
    assert row["gradients_finite"]
    assert row["float32_error"] is None or row["float32_error"] < row["float32_limit"] <= 1e-5


def test_kernels_agree_with_stored_ones_where_these_are_exact():
    record = json.loads((BENCHMARKS / "results" / "layers.json").read_text("utf-8"))
    assert len(record["stored"]) == 33
    assert max(row["exact"] for row in record["stored"]) < 1e-10
