"""What is committed of the notebooks: outputs and figures of the very cells of their scripts.

``make notebooks`` executes them; here nothing is run.
"""

import importlib.util
import re
from pathlib import Path

import jax
import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
LARGEST = 400_000  # bytes of a file
HINT = "run `make notebooks-write` and commit what it wrote"

pytestmark = pytest.mark.skipif(not jax.config.jax_enable_x64, reason="the same in each precision")


def load_run():
    spec = importlib.util.spec_from_file_location("run", ROOT / "notebooks" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load_run()
SCRIPTS = run.scripts()
each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def committed(script):
    path = script.with_suffix(".ipynb")
    assert path.exists(), f"{path.name} is missing: {HINT}"
    return nbformat.read(path, as_version=4)


def code_cells(script):
    return [cell for cell in committed(script).cells if cell.cell_type == "code"]


def outputs(script):
    return [output for cell in code_cells(script) for output in cell.outputs]


def test_there_are_notebooks_and_no_outputs_without_a_script():
    assert len(SCRIPTS) >= 5
    assert {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")} == {p.stem for p in SCRIPTS}


@each
def test_the_committed_cells_are_those_of_the_script(script):
    expected = [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]
    found = [(cell.cell_type, cell.source) for cell in committed(script).cells]
    assert found == expected, f"{script.name} has changed since: {HINT}"


@each
def test_every_cell_was_run_in_order_and_none_failed_or_warned(script):
    cells = code_cells(script)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    found = outputs(script)
    assert not [output for output in found if output.output_type == "error"]
    assert not [output for output in found if output.get("name") == "stderr"]


@each
def test_there_is_text_and_a_figure_and_the_file_is_small(script):
    found = outputs(script)
    figures = [o for o in found if "image/png" in o.get("data", {})]
    assert figures
    assert len(figures) < len(found)
    assert script.with_suffix(".ipynb").stat().st_size < LARGEST


@each
def test_claims_are_asserted(script):
    assert len(re.findall(r"^ *assert ", jupytext.read(script).cells[-1].source, re.M)) >= 3


@each
def test_nothing_of_the_machine_or_the_time_is_kept(script):
    notebook = committed(script)
    kept = [(cell.id, dict(cell.metadata)) for cell in notebook.cells]
    assert kept == [(f"cell-{i:02d}", {}) for i in range(len(kept))]
    assert dict(notebook.metadata.language_info) == {"name": "python"}
    text = script.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert not re.findall(r"/home/|/root/|/tmp/|0x[0-9a-f]{8}", text)
