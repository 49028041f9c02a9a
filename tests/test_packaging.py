"""What the whole package promises: public JAX only, light imports, one version, small files."""

import ast
import configparser
import re
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import ntk_lab

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ntk_lab"
MODULES = sorted(PACKAGE.rglob("*.py"))
QUARANTINE = set((PACKAGE / "interop").glob("*neural_tangents*.py"))

PRIVATE_JAX = re.compile(
    r"\bjax\._src\b|\bjax\.core\b|\bpmap\b|\bfrom jax import [^\n]*\b(?:core|_src)\b"
)
OPTIONAL = (
    "dask",
    "equinox",
    "flax",
    "haiku",
    "matfree",
    "matplotlib",
    "neural_tangents",
    "pandas",
    "rich",
    "sklearn",
    "tensorflow",
    "torch",
    "xarray",
    "zarr",
)
LONGEST_FILE = 400


def setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def relative(path):
    return path.relative_to(ROOT).as_posix()


def test_only_the_neural_tangents_bridge_touches_private_or_legacy_jax():
    offenders = {
        relative(path): found
        for path in MODULES
        if path not in QUARANTINE
        and (found := PRIVATE_JAX.findall(path.read_text(encoding="utf-8")))
    }
    assert not offenders


def test_programs_are_compiled_in_one_place():
    # Plain jit lets XLA use what gives garbage on CPUs; see ntk_lab/compiled.py.
    plain = {
        relative(p) for p in MODULES if re.search(r"(?<![`.\w])jax\.jit\b(?!`)", p.read_text())
    }
    assert plain - {relative(p) for p in QUARANTINE} == {"ntk_lab/compiled.py"}


def test_importing_the_package_loads_no_optional_dependency():
    program = f"import sys, ntk_lab; print([m for m in {OPTIONAL!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_type_information_is_shipped():
    assert resources.files("ntk_lab").joinpath("py.typed").is_file()
    assert setup_cfg()["options.package_data"]["ntk_lab"] == "py.typed"


def test_the_version_is_that_of_setup_cfg():
    expected = setup_cfg()["metadata"]["version"]
    assert ntk_lab.__version__ == expected
    assert metadata.version("ntk_lab") == expected


def test_setup_cfg_uses_underscore_keys_only():
    config = setup_cfg()
    keys = [key for section in ("metadata", "options") for key in config[section]]
    assert not [key for key in keys if "-" in key]


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in MODULES}
    assert not [relative(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_every_file_stays_short():
    lengths = {relative(p): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES}
    too_long = {name: lines for name, lines in lengths.items() if lines >= LONGEST_FILE}
    assert not too_long


def test_every_module_has_a_docstring():
    trees = {relative(path): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
    assert not [name for name, tree in trees.items() if not ast.get_docstring(tree)]


def test_locks_pin_everything_and_name_no_place():
    for lock in sorted((ROOT / "locks").glob("*.txt")):
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text
        requirements = [line for line in text.splitlines() if line and line.lstrip()[0] != "#"]
        assert requirements
        assert not [line for line in requirements if not re.match(r"[\w.-]+==[\w.]+(?: ;|$)", line)]


def test_benchmark_tables_of_the_readme_are_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "table.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
