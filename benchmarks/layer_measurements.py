"""What is measured of one layer: see benchmarks/layer_table.py."""

import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from layer_cases import CASES, OUTPUTS, Case  # noqa: E402
from ntk_lab import nn  # noqa: E402
from tests.golden_nets import build as build_stored  # noqa: E402

jax.config.update("jax_enable_x64", True)

GOLDEN = ROOT / "tests" / "golden" / "public"
STEP = 1e-5
# Of kernels from sampled logits: the root of their covariance amplifies the rounding of values.
SAMPLED_STEP = 5e-5
# A stored value for which a looser tolerance than this is asked for is itself inexact.
EXACT = 1e-10


def measure(name: str) -> dict[str, Any]:
    """One row, without what stored values say."""
    case, start = next(case for case in CASES if case.name == name), time.perf_counter()
    row: dict[str, Any] = {"name": name, "layer": case.layer, "group": case.group}
    row |= {"kind": case.kind, "float32_limit": case.float32_limit}
    if case.kind == "finite only":
        row |= finite_half(case)
    else:
        x = rounded(case.inputs("near"))
        row["float32_error"] = None if case.sampled else float32_error(case.build(16), x)
        row |= kernel_gradients(case)
        if case.kind == "pair":
            row |= finite_against_infinite(case, x)
    return row | {"seconds": time.perf_counter() - start}


def rounded(x: Any, dtype: Any = float) -> Any:
    """Inputs that single precision has exactly."""
    whole = jax.tree.map(lambda v: v.dtype == jnp.result_type(int), x)
    return jax.tree.map(lambda v, i: v if i else v.astype(jnp.float32).astype(dtype), x, whole)


def float32_error(net: nn.Module, x: Any) -> float:
    exact = net.kernel(x)
    data = jax.tree.map(np.asarray, rounded(x, jnp.float32))
    with jax.enable_x64(False):
        short = net.kernel(jax.tree.map(jnp.asarray, data))
        assert short.ntk.dtype == jnp.float32
    return max(
        relative_to_norms(np.asarray(a), np.asarray(b)) for a, b in zip(short, exact, strict=True)
    )


def relative_to_norms(actual: np.ndarray, exact: np.ndarray) -> float:
    norms = np.sqrt(np.diagonal(exact))
    return float((np.abs(actual - exact) / np.outer(norms, norms)).max())


# Finite against infinite


def finite_against_infinite(case: Case, x: Any) -> dict[str, Any]:
    """Deviations of random networks from the kernel, in units of its largest entry."""
    nngp, ntk, errors = [], [], []
    reference = infinite(case, case.widths[0], x)
    for width in case.widths:
        if case.per_width and width != case.widths[0]:
            reference = infinite(case, width, x)
        samples = draw(case, width, x)
        scales = [np.abs(k).max() for k in reference[0]]
        for values, kernel, scale, into in zip(
            samples, reference[0], scales, (nngp, ntk), strict=True
        ):
            into.append((values - kernel) / scale)
        errors.append([e / scale for e, scale in zip(reference[1], scales, strict=True)])
    z_nngp, seen_nngp = z_score(nngp[-2:], case.widths[-2:], errors[-1][0])
    z_ntk, seen_ntk = z_score(ntk[-2:], case.widths[-2:], errors[-1][1])
    slope, slope_error = width_slope(ntk, case.widths)
    return {
        "z_nngp": z_nngp,
        "z_ntk": z_ntk,
        "resolution": max(seen_nngp, seen_ntk),
        "slope": slope,
        "slope_error": slope_error,
        "widths": list(case.widths),
        "seeds": case.seeds,
    }


def infinite(case: Case, width: int, x: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """NNGP and NTK, and their standard errors, which are zero unless the kernel is sampled."""
    net = case.build(width)
    if case.sampled:
        kernel, stderr = nn.kernel_over_seeds(net, x, repeats=case.sampled)
        return [np.asarray(k) for k in kernel], [np.asarray(e) for e in stderr]
    kernel = [np.asarray(k) for k in net.kernel(x)]
    return kernel, [np.zeros_like(k) for k in kernel]


def draw(case: Case, width: int, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """NNGP, averaged over outputs, and NTK of the first output, ``(seeds, n, n)`` each."""
    net = case.build(width)

    @jax.jit
    def one(key):
        apply = nn.with_dropout(net.apply, jax.random.fold_in(key, 1)) if case.masks else net.apply
        f, pull = jax.vjp(lambda p: apply(p, x), net.init(key, x.shape[1:]))
        n = len(f)
        cotangents = jnp.zeros((n, *f.shape)).at[jnp.arange(n), jnp.arange(n), 0].set(1)
        (rows,) = jax.vmap(pull)(cotangents)
        rows = jnp.concatenate([r.reshape(n, -1) for r in jax.tree.leaves(rows)], axis=1)
        return f @ f.T / f.shape[1], rows @ rows.T

    # One by one: a batch of convolutions with weights of their own is slow on CPUs.
    seeds = case.seeds // 2 if width == case.widths[-1] else case.seeds
    keys = jax.random.split(jax.random.key(width), seeds)
    nngp, ntk = zip(*(jax.device_get(one(key)) for key in keys), strict=True)
    return np.stack(nngp), np.stack(ntk)


def z_score(deviations: list[np.ndarray], widths: tuple[int, ...], own: np.ndarray):
    """Largest mean deviation in standard errors, a term in 1/width extrapolated away.

    The second number is the largest standard error: a deviation of that size would be seen.
    """
    ratio = widths[1] / widths[0]
    weights = -1 / (ratio - 1), ratio / (ratio - 1)
    pairs = list(zip(weights, deviations, strict=True))
    mean = sum(w * d.mean(axis=0) for w, d in pairs)
    variance = sum(w**2 * d.var(axis=0, ddof=1) / len(d) for w, d in pairs)
    error = np.sqrt(variance + own**2)
    return float((np.abs(mean) / np.maximum(error, 1e-12)).max()), float(error.max())


def width_slope(deviations: list[np.ndarray], widths: tuple[int, ...]) -> tuple[float, float]:
    """Power of the width in the rms deviation of one network, and its standard error.

    ``log rms = a + slope log(width) + c / width`` through three widths: the last term is what
    fluctuations have of higher order.
    """
    squares = [(d**2).mean(axis=(1, 2)) for d in deviations]
    logs = np.array([np.log(s.mean()) / 2 for s in squares])
    errors = np.array([s.std(ddof=1) / s.mean() / len(s) ** 0.5 / 2 for s in squares])
    w = np.asarray(widths, float)
    weights = np.linalg.inv(np.stack([np.ones_like(w), np.log(w), 1 / w], axis=1))[1]
    return float(weights @ logs), float(np.sqrt(weights**2 @ errors**2))


# Gradients


def kernel_gradients(case: Case) -> dict[str, Any]:
    """Derivatives of a random combination of all entries of both kernels."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, 5, 5))

    def f(net, x):
        return sum(jnp.sum(w * k) for w, k in zip(weights, net.kernel(x), strict=True))

    net, singular = case.build(16), case.inputs("singular")
    both = jax.jit(jax.value_and_grad(f, argnums=(0, 1), allow_int=True))
    finite = all(
        np.isfinite(leaf).all()
        for scales in (net, _without_bias(net))
        for leaf in jax.tree.leaves(both(scales, singular))
        if jnp.issubdtype(np.asarray(leaf).dtype, jnp.floating)
    )
    step = SAMPLED_STEP if case.sampled else STEP
    scales, inputs = directional_errors(both, (net, case.inputs("generic")), rng, step)
    return {
        "gradient_error_inputs": inputs,
        "gradient_error_scales": scales,
        "gradients_finite": finite,
    }


def finite_half(case: Case) -> dict[str, Any]:
    """Gradients and single precision of the outputs of one network."""
    rng = np.random.default_rng(0)
    net, x = case.build(16), case.inputs("generic")
    params = net.init(jax.random.key(0), x.shape[1:])
    weights = rng.normal(size=(5, OUTPUTS))
    f = lambda params, x: jnp.sum(weights * net.apply(params, x))  # noqa: E731
    both = jax.jit(jax.value_and_grad(f, argnums=(0, 1)))
    finite = all(np.isfinite(v).all() for v in jax.tree.leaves(both(params, 0 * x)))
    in_params, inputs = directional_errors(both, (params, x), rng)
    x = rounded(x)
    exact = net.apply(params, x)
    short = net.apply(*jax.tree.map(lambda v: v.astype(jnp.float32), (params, x)))
    return {
        "float32_error": float(jnp.abs(short - exact).max() / jnp.abs(exact).max()),
        "gradient_error_inputs": inputs,
        "gradient_error_scales": in_params,
        "gradients_finite": finite,
    }


def directional_errors(both, arguments: tuple, rng, step: float = STEP) -> list[float | None]:
    """Relative difference of derivatives and central differences, for each of both arguments."""
    gradients, errors = both(*arguments)[1], []
    for i, argument in enumerate(arguments):
        direction = jax.tree_util.tree_map_with_path(lambda *a: _direction(*a, rng), argument)
        if all(np.all(d == 0) for d in jax.tree.leaves(direction)):
            errors.append(None)
            continue
        values = []
        for move in (step, -step):
            moved = jax.tree.map(lambda v, d, s=move: v + s * d, argument, direction)
            values.append(both(*(moved if j == i else a for j, a in enumerate(arguments)))[0])
        slope = (values[0] - values[1]) / (2 * step)
        products = jax.tree.map(lambda g, d: jnp.sum(g * d), gradients[i], direction)
        errors.append(float(abs(sum(jax.tree.leaves(products)) - slope) / abs(slope)))
    return errors


def _direction(path, leaf: Any, rng) -> Any:
    """A random direction; none for tokens and for the seeds of sampled layers."""
    varies = jnp.issubdtype(np.result_type(leaf), jnp.floating) and _name(path) != "seed"
    return rng.normal(size=np.shape(leaf)) if varies else np.zeros(np.shape(leaf), int)


def _without_bias(net: nn.Module) -> nn.Module:
    change = lambda path, leaf: 0.0 if _name(path) == "b_std" else leaf  # noqa: E731
    return jax.tree_util.tree_map_with_path(change, net)


def _name(path) -> str:
    return getattr(path[-1], "name", "") if path else ""


# Stored values


def golden(name: str) -> dict[str, Any]:
    """Errors against the stored kernels of one architecture, and the layers in it.

    ``limited`` is the part at points where the reference itself is known not to be exact.
    """
    case, net = stored_cases()[name]
    with np.load(GOLDEN / "cases.npz") as file:
        arrays = {k.partition("/")[2]: v for k, v in file.items() if k.startswith(name + "/")}
    first, second = (_stored_input(arrays, i) for i in (1, 2))
    kernel, n = net.kernel(jax.tree.map(lambda *v: jnp.concatenate(v), first, second)), len(first)
    errors = {"exact": [0.0], "limited": []}
    prefix = "exact_" if "numerical" in case["tags"] else ""
    for which, value in kernel._asdict().items():
        for pairs, block in (("11", value[:n, :n]), ("12", value[:n, n:])):
            expected = arrays[f"{prefix}{which}_{pairs}"]
            known = np.isfinite(expected)
            error = np.abs(block - expected)[known].max() / np.abs(expected[known]).max()
            limited = case["rtol"][f"{which}_{pairs}"] > EXACT
            errors["limited" if limited else "exact"].append(float(error))
    return {
        "case": name,
        "layers": sorted(set(layers(net))),
        "exact": max(errors["exact"]),
        "limited": max(errors["limited"], default=None),
    }


@functools.cache
def stored_cases() -> dict[str, tuple[dict, nn.Module]]:
    cases = json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))["cases"]
    return {case["id"]: (case, build_stored(case["net"])) for case in cases}


def _stored_input(arrays: dict, i: int) -> Any:
    x = jnp.asarray(arrays[f"x{i}"])
    return nn.Graph(x, jnp.asarray(arrays[f"pattern{i}"])) if "pattern1" in arrays else x


def layers(net: Any) -> list[str]:
    """Names of all layers inside, with the parameterization behind those of others than ntk."""
    if isinstance(net, tuple):
        return [name for part in net for name in layers(part)]
    if not isinstance(net, nn.Module):
        return []
    names = [type(net).__name__]
    special = getattr(net, "parameterization", "ntk")
    if special != "ntk":
        names.append(f"{names[0]}, {special}")
    return [*names, *(n for f in dataclasses.fields(net) for n in layers(getattr(net, f.name)))]
