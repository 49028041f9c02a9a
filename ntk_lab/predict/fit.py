"""Fitting a network's scales, depth and noise to data, by the marginal likelihood."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from ntk_lab.compiled import compiled
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.predict.inputs import Which, read_array, read_outputs
from ntk_lab.predict.likelihood import density
from ntk_lab.solve import Diagnostics, diagnose

Progress = Callable[[int, int, float], None]


class Fit(NamedTuple):
    """The network and noise that explain the data best.

    Attributes
    ----------
    network
        With the fitted scales.
    noise
        Fitted variance of the noise in the targets.
    log_marginal_likelihood
        Of the data, natural logarithm, summed over outputs.
    trajectory
        What each step had before its update: ``"log_marginal_likelihood"``, ``"noise"`` and each
        fitted scale by its path, such as ``"layers/0/w_std"``; arrays ``(steps + 1,)``. Shorter
        if the likelihood ceased to exist on the way.
    diagnostics
        Of the fitted kernel plus noise: condition number, smallest eigenvalue. Its ``ridge`` is
        the noise; nothing else is ever added.
    chosen
        Which of the networks given it is, from 0.
    candidates
        Best log marginal likelihood of each of them.
    """

    network: Any
    noise: float
    log_marginal_likelihood: float
    trajectory: dict[str, np.ndarray]
    diagnostics: Diagnostics
    chosen: int
    candidates: tuple[float, ...]


def fit(
    networks: Any | Sequence[Any],
    x: Any,
    y: ArrayLike,
    *,
    noise: float = 0.1,
    which: Which = "nngp",
    select: Callable[[str], bool] = lambda path: path.endswith("_std"),
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 100,
    progress: Progress | None = None,
) -> Fit:
    """Scales, noise and architecture of the highest marginal likelihood, by gradient.

    Parameters
    ----------
    networks
        A network, or several to choose among, such as one of each depth.
    x, y
        Training inputs, and targets ``(n, outputs)``.
    noise
        Variance of the noise to start from, > 0.
    which
        The kernel of the Gaussian process: "nngp" (Bayesian inference over all parameters) or
        "ntk".
    select
        Which scales to fit, by their path; by default all that end in ``_std``, each layer's its
        own. They are kept positive; one that is zero stays zero, as the likelihood is flat there:
        give a small ``b_std`` for it to be fitted.
    optimizer
        Any optax optimizer, of the logarithms of scales and noise; default ``optax.adam(0.05)``.
    steps
        Number of updates for each network.
    progress
        Called as ``progress(done, total, log_marginal_likelihood)`` after each step.

    Returns
    -------
    Fit
        The best that was met on the way, over all steps and networks.

    Raises
    ------
    InputError
        If an argument does not fit, or no scale is selected.
    NumericalError
        If the likelihood does not exist at the start: the kernel plus noise is not positive
        definite.

    Notes
    -----
    A step costs a kernel and its gradient, and one Cholesky factorization. Likelihoods have
    several maxima; what is found depends on the start. In float32 keep the noise well above
    ``n * 1e-7`` times the kernel.

    Examples
    --------
    >>> import numpy as np, ntk_lab as ntk
    >>> x = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    >>> net = ntk.nn.Sequential(
    ...     ntk.nn.Dense(64, b_std=0.5), ntk.nn.Erf(), ntk.nn.Dense(1)
    ... )
    >>> found = ntk.predict.fit(net, x, np.sin(3 * x), steps=20)
    >>> bool(found.log_marginal_likelihood > found.trajectory["log_marginal_likelihood"][0])
    True
    >>> sorted(found.trajectory)[:2]
    ['layers/0/b_std', 'layers/0/w_std']
    """
    several = list(networks) if isinstance(networks, Sequence) else [networks]
    if not several or not all(callable(getattr(net, "kernel", None)) for net in several):
        raise InputError("networks must be a network with a kernel, or a sequence of some.")
    if which not in ("ntk", "nngp"):
        raise InputError(f'which is {which!r}; it must be "nngp" or "ntk".')
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise InputError(f"steps={steps!r}; expected a whole number, at least 0.")
    if not 0 < float(noise) < float("inf"):
        raise InputError(f"noise={noise}; a fit starts from a positive, finite variance.")
    x = jax.tree.map(partial(read_array, "x"), x)
    leaf = jax.tree.leaves(x)[0]
    y = read_outputs("y", y, len(leaf), None, leaf.dtype)
    rule = optax.adam(0.05) if optimizer is None else optimizer
    found = []
    for index, net in enumerate(several):
        report = None
        if progress is not None:
            report = partial(_report, progress, index * steps, len(several) * steps)
        found.append(_fit_one(net, x, y, float(noise), which, select, rule, steps, report))
    candidates = tuple(one.log_marginal_likelihood for one in found)
    chosen = int(np.argmax(candidates))
    return found[chosen]._replace(chosen=chosen, candidates=candidates)


def _report(progress: Progress, before: int, total: int, done: int, value: float) -> None:
    progress(before + done, total, value)


def _fit_one(
    net: Any,
    x: Any,
    y: jax.Array,
    noise: float,
    which: Which,
    select: Callable[[str], bool],
    rule: optax.GradientTransformation,
    steps: int,
    report: Callable[[int, float], None] | None,
) -> Fit:
    pairs, tree = jax.tree_util.tree_flatten_with_path(net)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in pairs]
    leaves = [jnp.asarray(leaf, y.dtype) for _, leaf in pairs]
    names = [p for p, leaf in zip(paths, leaves, strict=True) if select(p) and leaf > 0]
    if not names:
        raise InputError(f"select leaves no positive scale of {', '.join(paths) or 'none'} to fit.")

    def network(logs: dict[str, jax.Array]) -> Any:
        values = [
            jnp.exp(logs[p]) if p in logs else leaf for p, leaf in zip(paths, leaves, strict=True)
        ]
        return jax.tree.unflatten(tree, values)

    def kernel(logs: dict[str, jax.Array]) -> jax.Array:
        return getattr(network(logs).kernel(x), which)

    def cost(logs: dict[str, jax.Array]) -> jax.Array:
        return -density(kernel(logs), y, jnp.exp(logs["noise"])) / y.size

    @compiled
    def step(logs: dict[str, jax.Array], state: Any) -> tuple[Any, Any, jax.Array]:
        value, slope = jax.value_and_grad(cost)(logs)
        with jax.numpy_dtype_promotion("standard"):  # optax raises rates to counts of steps
            updates, state = rule.update(slope, state, logs)
        return optax.apply_updates(logs, updates), state, -value * y.size

    logs = {p: jnp.log(leaf) for p, leaf in zip(paths, leaves, strict=True) if p in names}
    logs["noise"] = jnp.log(jnp.asarray(noise, y.dtype))
    state, path, values = rule.init(logs), [], []
    for done in range(steps + 1):
        following, state, value = step(logs, state)
        if not np.isfinite(float(value)):
            break
        path.append(logs)
        values.append(float(value))
        if report is not None and done:
            report(done, float(value))
        logs = following
    if not values:
        raise NumericalError(
            "the kernel plus noise is not positive definite to rounding at the start, so the data "
            "have no density: start from more noise, or compute in float64."
        )
    best = path[int(np.argmax(values))]
    trajectory = {p: np.exp([float(logs[p]) for logs in path]) for p in logs}
    trajectory["log_marginal_likelihood"] = np.asarray(values)
    fitted = jax.tree.map(float, network(best))
    variance = jnp.exp(best["noise"])
    diagnostics = diagnose(kernel(best), ridge=variance)
    return Fit(fitted, float(variance), max(values), trajectory, diagnostics, 0, (max(values),))
