"""Structured kernels against brute-force Jacobians, on many ways to use a parameter."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.empirical import engine
from ntk_lab.empirical.arguments import arguments
from ntk_lab.empirical.structured.build import build
from tests.empirical.oddities import CASES
from tests.tolerance import assert_close


def cut(x, start, stop):
    return jax.tree.map(lambda leaf: leaf[start:stop], x)


def floats(params):
    leaves, tree = jax.tree.flatten(params)
    chosen = [jnp.issubdtype(jnp.asarray(v).dtype, jnp.floating) for v in leaves]

    def rebuild(values):
        values = iter(values)
        return tree.unflatten(
            [next(values) if c else v for v, c in zip(leaves, chosen, strict=True)]
        )

    return [v for v, c in zip(leaves, chosen, strict=True) if c], rebuild


def brute_force(f, params, x):
    """Jacobians ``(n, C, P)`` by ``jacrev`` of the whole batch."""
    leaves, rebuild = floats(params)
    n = len(jax.tree.leaves(x)[0])

    def outputs(values):
        return f(rebuild(values), x).reshape(n, -1)

    jacobians = jax.jit(jax.jacrev(outputs))(leaves)
    rows = [np.asarray(j, np.float64).reshape(*j.shape[:2], -1) for j in jacobians]
    return np.concatenate(rows, axis=2)


def product(j1, j2):
    return np.einsum("iap,jbp->ijab", j1, j2)


@pytest.fixture(scope="module", params=list(CASES))
def example(request):
    f, params, x = CASES[request.param]()
    return f, params, x, brute_force(f, params, x)


def close(actual, expected):
    assert_close(actual, expected, factor=20 if actual.dtype == jnp.float32 else 1)


def test_every_use_of_a_parameter_gives_the_exact_kernel(example):
    f, params, x, j = example
    close(ntk.empirical.ntk(f, params, cut(x, 0, 2), cut(x, 1, None)), product(j[:2], j[1:]))
    trace = ntk.empirical.ntk(f, params, x, outputs="trace")
    close(trace, np.einsum("iap,jap->ij", j, j) / j.shape[1])


def forced(parts, form):
    """The parts in one form, those that can take it."""

    def fits(part):
        if form == "mixed":
            return part.kind == "outer" and part.sizes[0] == 1
        if form == "readout":
            return part.readout is not None
        return part.kind in ("outer", "tokens")

    return [replace(p, form=form, early=form == "rows") if fits(p) else p for p in parts]


def test_every_form_gives_the_exact_kernel(example):
    f, params, x, j = example
    args = arguments(f, params, x, None, None)
    program = build(f, args.signature(structured=True, merge=True))
    job = engine.job(args, program, "full", jnp.eye(j.shape[1]), 1e9)
    tried = [job.parts]  # what the cost model chose is tried elsewhere
    for form in ("gram", "mixed", "readout", "rows"):
        parts = forced(job.parts, form)
        if parts in tried:
            continue
        tried.append(parts)
        (kernel,) = engine.kernels(replace(job, parts=parts), (tuple(range(len(parts))),))
        close(kernel, product(j, j))
