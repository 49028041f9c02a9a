"""Settings of every test: precision, simulated devices, strict promotion, keys."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
# For programs of the tests' own: see ntk_lab/compiled.py, which is tested without it. Most of the
# tests' time is LLVM's: the float32 run alone has the optimizations that users have.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_experimental_ynn_fusion_type=invalid"
    + " --xla_backend_optimization_level=0" * (os.environ.get("JAX_ENABLE_X64", "1") != "0"),
)

import hypothesis
import jax
import pytest

X64 = os.environ.get("JAX_ENABLE_X64", "1").lower() in ("1", "true", "yes", "on")

jax.config.update("jax_enable_x64", X64)
jax.config.update("jax_num_cpu_devices", 4)  # simulated, so that sharding is tested anywhere
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compilation makes first examples slow, and a failure must be the same on every machine.
hypothesis.settings.register_profile("ntk_lab", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ntk_lab")


def pytest_report_header():
    """Say which JAX and which precision a run tested."""
    return f"jax {jax.__version__}, {'float64' if X64 else 'float32'}"


def pytest_collection_modifyitems(items):
    """Skip tests marked ``x64`` where float64 is switched off."""
    if not X64:
        skip = pytest.mark.skip(reason="needs float64 (JAX_ENABLE_X64=1)")
        for item in items:
            if item.get_closest_marker("x64"):
                item.add_marker(skip)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Drop what was compiled for a file of tests.

    Each program takes memory maps, of which a process has 65530 by default; when they run out,
    the compiler crashes.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    """One fixed random key; split it for more."""
    return jax.random.key(0)
