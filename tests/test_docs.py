"""Every example in a docstring and in the README runs, and says what it prints."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import jax
import pytest

import ntk_lab

ROOT = Path(__file__).parents[1]
MODULES = sorted(m.name for m in pkgutil.walk_packages(ntk_lab.__path__, "ntk_lab."))

# Examples show the default precision.
pytestmark = pytest.mark.skipif(jax.config.jax_enable_x64, reason="examples show float32")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_print_what_they_say(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


def test_the_package_has_examples():
    finder = doctest.DocTestFinder()
    found = [
        t for name in MODULES for t in finder.find(importlib.import_module(name)) if t.examples
    ]
    assert len(found) > 15


def test_the_example_of_the_readme_runs(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert "total" in capsys.readouterr().out
