# Everything here needs only Python >= 3.11, make and git; `make help` lists the targets.
# The environment is built on first use and again whenever the locks or setup.cfg change.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
BIN := $(VENV)/bin
LOCKS := locks/jax-0.10.txt locks/jax-0.12.txt locks/neural-tangents.txt
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed

PIP := $(BIN)/python -m pip install -qq --no-input
# A file of tests stays in one process, which forgets its compiled programs at the end of it.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
# What depends most on precision, and the examples of docstrings and README, are tested in float32
# too; more of it with the slow tests.
IN_FLOAT32 := $(addprefix tests/,kernel solve test_docs.py test_losses.py test_compiled.py \
    test_turned.py)
MORE_IN_FLOAT32 := $(addprefix tests/,nn empirical predict train/test_ensemble.py \
    theory/test_learning_curves.py)
SAME_IN_FLOAT32 := $(addprefix --ignore=tests/,nn/test_layer_table.py nn/test_masks.py \
    nn/test_layers_against_ensembles.py nn/test_positions_against_ensembles.py \
    nn/test_finite_against_infinite.py kernel/test_export.py kernel/test_to_store.py \
    kernel/test_sharded.py empirical/test_on_disk.py empirical/test_operator_matfree.py \
    predict/test_regress.py)
FLOAT32 := JAX_ENABLE_X64=0 $(PYTEST) -m "not x64 and not slow" $(SAME_IN_FLOAT32)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-fast test-slow test-newest lint format bench notebooks notebooks-write lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' Makefile

venv: $(INSTALLED) ## Build the environment in .venv (every target that needs it does so itself)

demo: $(INSTALLED) ## Compare a trained network with its kernel on the digits data
	$(BIN)/ntk-lab compare --data digits --widths 64 128 256 512 1024 \
	    --train 160 --seeds 4 --steps 300 --output reports/digits

test: $(INSTALLED) ## Run the tests in float64, then some in float32 (PYTEST_ARGS="-k relu" passes through)
	@echo "== Tests, float64"
	@JAX_ENABLE_X64=1 $(PYTEST) -m "not slow" $(PYTEST_ARGS)
	@echo "== Tests, float32"
	@$(FLOAT32) $(IN_FLOAT32) $(PYTEST_ARGS)

test-fast: $(INSTALLED) ## Run the tests not marked slow, in float64 only
	@JAX_ENABLE_X64=1 $(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: $(INSTALLED) ## Run the tests marked slow, and more of the others in float32
	@echo "== Slow tests, float64"
	@JAX_ENABLE_X64=1 $(PYTEST) -m slow $(PYTEST_ARGS)
	@echo "== More tests, float32"
	@$(FLOAT32) $(MORE_IN_FLOAT32) $(PYTEST_ARGS)

# Prints "version path" of every Python from 3.12 to 3.14 that really runs (a pyenv shim may not).
define list_newer_pythons
for python in python3.14 python3.13 python3.12 "$$HOME"/.pyenv/versions/3.1[234].*/bin/python; do \
    "$$python" -c 'import ensurepip, sys, sysconfig; v = sys.version_info; print("%d.%d.%d" % v[:3], sys.executable) if (3, 12) <= v[:2] <= (3, 14) and v.releaselevel == "final" and not sysconfig.get_config_var("Py_GIL_DISABLED") else None' 2>/dev/null || true; \
done
endef

test-newest: ## Run the tests on the newest Python and JAX, in .venv-newest (skipped if Python < 3.12)
	@found=$$($(list_newer_pythons)); newest=$$(echo "$$found" | sort -V | tail -n 1 | cut -d ' ' -f 2-); \
	if [ -z "$$newest" ]; then \
	    echo "Skipped: no Python 3.12, 3.13 or 3.14 found, and the newest JAX needs one."; \
	else \
	    echo "== Newest environment: $$("$$newest" --version)"; \
	    $(MAKE) test VENV=.venv-newest PYTHON="$$newest"; \
	fi

lint: $(INSTALLED) ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(INSTALLED) ## Fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## Run every benchmark and rewrite the tables in README.md
	@set -e; for script in benchmarks/bench_*.py; do \
	    [ -e "$$script" ] || { echo "There are no benchmarks yet."; break; }; \
	    echo "== $$script"; $(BIN)/python "$$script"; \
	done
	@$(BIN)/python benchmarks/table.py

notebooks: $(INSTALLED) ## Execute every notebook, failing on any error
	@$(BIN)/python notebooks/run.py

notebooks-write: $(INSTALLED) ## Execute every notebook and rewrite the .ipynb files with their outputs
	@$(BIN)/python notebooks/run.py --write

# Existing pins are kept; `make lock UPGRADE=--upgrade` moves them to the newest releases.
UV ?= .venv-lock/bin/uv
UPGRADE ?=
COMPILE = $(UV) pip compile -q setup.cfg --extra all --universal --fork-strategy fewest \
    --no-python-downloads --custom-compile-command "make lock" $(UPGRADE)

lock: $(filter .venv-lock/%,$(UV)) ## Pin the dependencies of setup.cfg again
	$(COMPILE) locks/jax-0.10.in --python-version 3.11 --output-file locks/jax-0.10.txt
	$(COMPILE) locks/jax-0.12.in --python-version 3.12 --output-file locks/jax-0.12.txt

.venv-lock/bin/uv:
	@echo "== Fetching uv, which pins dependencies, into .venv-lock"
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install -qq --no-input uv

clean: ## Remove the environments and everything built (reports are kept)
	rm -rf .venv .venv-newest .venv-lock build dist ntk_lab.egg-info
	rm -rf .hypothesis .pytest_cache .ruff_cache
	find ntk_lab tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

$(LOCKED): $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "ntk_lab needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not found)." >&2; \
	    echo "Name another interpreter: make PYTHON=python3.12 ..." >&2; exit 1; }
	@lock=$$($(PYTHON) -c 'import sys; print("locks/jax-0.10.txt" if sys.version_info < (3, 12) else "locks/jax-0.12.txt")'); \
	echo "== Building $(VENV): $$($(PYTHON) --version), $$lock"; \
	$(PYTHON) -m venv --clear $(VENV) && \
	echo "== Installing the locked packages (about 280 MB to download the first time)" && \
	$(PIP) -r "$$lock" && $(PIP) --no-deps -r locks/neural-tangents.txt
	@touch $@

$(INSTALLED): $(LOCKED) setup.cfg pyproject.toml
	@echo "== Installing ntk_lab into $(VENV)"
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@
