"""docs/verdicts.md is what was measured, and what was measured obeys the dynamical dichotomy."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
RECORD = json.loads((BENCHMARKS / "results" / "verdicts.json").read_text("utf-8"))
ROWS = {(r["data"], r["architecture"], r["parameterization"]): r for r in RECORD["rows"]}
NAMES = ("ntk", "standard", "mean_field", "mup")
PAIRS = [
    pair
    for pair in dict.fromkeys(key[:2] for key in ROWS)
    if all((*pair, name) in ROWS for name in NAMES)
]


def test_the_page_is_up_to_date(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from verdict_page import CELLS, page

    text = page(RECORD)
    assert text == (ROOT / "docs" / "verdicts.md").read_text("utf-8")
    assert (f"of {CELLS} cells are measured so far" in text) == (len(ROWS) < CELLS)


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_kernel_parameterizations_come_closer_and_mean_field_does_not_stay(pair):
    of = {name: ROWS[(*pair, name)] for name in NAMES}
    rich = of["mean_field"]
    for name in ("ntk", "standard"):
        power, *_, theory = of[name]["exponents"]["total"]
        assert theory == -0.5
        assert power < 0
        for key in ("drift", "total"):
            assert of[name][key][-1][0] < rich[key][-1][0]
        features = [of[n]["gaps"]["feature learning"][-1][0] for n in (name, "mean_field")]
        assert features[0] < features[1]
    assert rich["drift"][-1][0] > rich["drift"][0][0]
    assert rich["verdicts"][-1] != "predicts"
