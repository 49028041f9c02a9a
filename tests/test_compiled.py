"""Programs of the package are compiled without the faulty fusions of XLA on CPUs."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from ntk_lab.compiled import _is_known, compiled

# Counts fusions in the compiled program, once by plain jit and once as the package compiles.
PROGRAM = """
import jax, jax.numpy as jnp
from ntk_lab.compiled import compiled

def f(a, b, c):
    return jnp.moveaxis(a @ (2 * b + 1) @ jnp.swapaxes(c, 1, 2) + b, 0, -1).mean((0, 1))

x = [jax.ShapeDtypeStruct((378, 11, 11), float)] * 3
for jit in (jax.jit, compiled, lambda f: compiled(f, sequential=True)):
    print(jit(f).lower(*x).compile().as_text().count("ynn_fusion"))
"""


def test_fusions_that_give_garbage_are_switched_off():
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment
    )
    plain, *others = map(int, done.stdout.split())
    assert plain > 0, "this JAX no longer has these fusions: compiled.py may go"
    assert others == [0, 0]


def test_options_that_a_release_does_not_know_are_left_out():
    assert _is_known("xla_cpu_experimental_ynn_fusion_type", "")
    assert not _is_known("xla_cpu_an_option_of_the_future", "")
    with pytest.raises(jax.errors.JaxRuntimeError, match="not a valid enum"):
        _is_known("xla_cpu_scheduler_type", "UNHEARD_OF")


def test_inside_other_transformations_it_is_plain_jit():
    @compiled(static_argnames="power")
    def f(x, power):
        """A power."""
        return x**power

    x = jnp.arange(3.0)
    known = jnp.ones(3)
    assert f.__doc__ == "A power."
    assert jnp.array_equal(f(x, power=2), x**2)
    assert jnp.array_equal(jax.jit(lambda x: f(x, power=2) + f(known, power=2))(x), x**2 + 1)
    assert jnp.array_equal(jax.vmap(jax.grad(lambda x: f(x, power=2)))(x), 2 * x)
