"""Gradient descent of linearized networks in function space: the numbers without the steps."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntk_lab.compiled import compiled
from ntk_lab.losses import mean_loss, squared
from ntk_lab.predict.heavy_ball import momentum_factors, plain_factors
from ntk_lab.progress import Progress
from ntk_lab.train.arguments import check, check_finite_rate, numbers_of, read_arrays
from ntk_lab.train.krylov import functions_of
from ntk_lab.train.program import Model, Params, count, program
from ntk_lab.train.record import Kernel, Recorder, check_kernel
from ntk_lab.train.schedule import check_record
from ntk_lab.train.sharpness import ntk_operator
from ntk_lab.train.trajectory import Trajectory


def linearized_descent(
    f: Model,
    params: Params,
    x_train: Any,
    y_train: jax.Array,
    x_test: Any = None,
    *,
    learning_rate: float,
    steps: int,
    record: tuple[int, ...] | None = None,
    momentum: float = 0.0,
    key: jax.Array | None = None,
    kernel_points: Any = None,
    kernel: Kernel = "combined",
    seeds: tuple[int, ...] | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Trajectory:
    """Full-batch gradient descent of the linearized networks on the squared loss.

    What ``ensemble(..., optimizer=optax.sgd(learning_rate, momentum), linearized=True)`` computes,
    from the recursion ``r_{k+1} = (I - learning_rate Theta / n) r_k`` of the errors ``r = f - y``
    with the empirical NTK of all outputs, in closed form of the number of steps.

    Parameters
    ----------
    f, params, x_train, y_train, x_test, steps, record, key, kernel_points, kernel, seeds, progress
        As for `ensemble`.
    learning_rate, momentum
        Of ``optax.sgd``; ``0 <= momentum < 1``.

    Returns
    -------
    Trajectory
        As of `ensemble`. A run beyond the limit of stability grows like the real one; where its
        loss is no longer finite, ``diverged`` is the first recorded step that shows it.

    Raises
    ------
    InputError
        As for `ensemble`; a learning rate that is not positive, a momentum out of range.

    Notes
    -----
    Krylov space of the NTK, started from the initial error: with the Lanczos matrix ``T`` of ``m``
    products ``Theta v``, ``phi(Theta) r_0 = |r_0| V phi(T) e_1`` for all recorded steps at once.
    ``m`` grows until one quarter fewer give the same outputs to ``eps^(3/4)`` of their movement,
    2e-12 in float64 and 6e-6 in float32; about ``sqrt(steps)`` or fewer, 20 to 60 where training
    takes thousands of steps. Each product costs 1.7 steps of training, each recorded step about
    twice that. Holds ``m`` vectors of all training outputs, and parameters of one seed at a time.
    arXiv:1902.06720.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> x, y = jnp.eye(2), jnp.ones((2, 1))
    >>> run = ntk.train.linearized_descent(
    ...     lambda w, x: x @ w, jnp.zeros((3, 2, 1)), x, y, learning_rate=1.0, steps=2
    ... )
    >>> print(run.steps, run.loss[0])
    [1 2] [0.125   0.03125]
    """
    record = check_record(steps, record)
    check_kernel(kernel)
    check_finite_rate(learning_rate, momentum)
    arrays = read_arrays(params, x_train, y_train, x_test, kernel_points)
    params, x, y, x_test, points = arrays
    y = check(f, params, x, y, x_test, None)
    seeds = numbers_of(seeds, count(params))
    key = jax.random.split(jax.random.key(0) if key is None else key)[1]
    made = program(f, optax.identity(), squared, None, True, True)
    recorder = Recorder(made, x, y, x_test, points, kernel, False, key, count(x), None)
    rate = _factors(learning_rate, momentum, record)
    results = []
    for place, seed in enumerate(seeds):
        if progress is not None:
            progress(Progress(place, len(seeds), f"seed {seed}, linearized"))
        own = jax.tree.map(lambda p, place=place: p[place], params)
        # Beyond stability numbers overflow, which is found in the loss below.
        with np.errstate(over="ignore", invalid="ignore"):
            results.append(_one(f, own, recorder, rate, record, seed))
    if progress is not None:
        progress(Progress(len(seeds), len(seeds), "done"))
    found = {name: np.stack([one[name] for one in results]) for name in results[0]}
    lost = ~np.isfinite(found["loss"])
    first = np.asarray(record)[lost.argmax(axis=1)]
    always = {name: found.pop(name) for name in ("train", "loss", "motion")}
    sometimes: dict[str, Any] = {"test": None, "ntk": None, **found}
    return Trajectory(
        steps=np.asarray(record), diverged=np.where(lost.any(axis=1), first, -1),
        **always, **sometimes,
    )  # fmt: skip


Factors = Callable[[np.ndarray], np.ndarray]


def _factors(rate: float, momentum: float, record: tuple[int, ...]) -> Factors:
    """From eigenvalues ``(m,)`` of ``Theta / n`` to what is learnt of each, divided by it."""
    steps, one = jnp.asarray(record, jnp.int32), _learnt(momentum)

    def learnt(values: np.ndarray) -> np.ndarray:
        # Rounding makes eigenvalues of nothing negative; there the limit is that of a small one.
        least = np.finfo(float).eps * max(float(values.max()), 1e-30)
        # Few lengths, as each is compiled once.
        padded = np.full(1 << (len(values) - 1).bit_length(), least)
        padded[: len(values)] = np.maximum(values, least)
        x = jnp.asarray(rate * padded, float)
        rows = np.asarray(one(x, steps), np.float64)
        rows = np.where(np.asarray(record)[:, None] > 0, rows, 0)
        return (rate * rows / np.asarray(x, np.float64))[:, : len(values)]

    return learnt


@lru_cache(maxsize=16)
def _learnt(momentum: float) -> Callable[..., jax.Array]:
    one = partial(momentum_factors, momentum=momentum) if momentum else plain_factors
    return compiled(jax.vmap(lambda x, k: one(x, k)[1], (None, 0)))


def _one(
    f: Model, params: Any, recorder: Recorder, factors: Factors, record: tuple[int, ...], seed: int
) -> dict[str, np.ndarray]:
    """Everything recorded of one seed, with recorded steps on the first axis."""
    x, y, n = recorder.x, recorder.y, count(recorder.x)
    start = _outputs(f)(params, x)
    error = np.asarray(start - y, np.float64)
    apply, size = _product(f), error.size

    def product(v: np.ndarray) -> np.ndarray:
        moved = apply(jnp.asarray(v.reshape(y.shape), y.dtype), (params, x))
        return np.asarray(moved, np.float64).reshape(size)

    tolerance = float(jnp.finfo(y.dtype).eps) ** 0.75
    pulled, moved = functions_of(product, error.reshape(size), factors, tolerance)
    train = (np.asarray(start, np.float64)[None] - moved.reshape(-1, *y.shape)).astype(y.dtype)
    found = {"train": train, "loss": np.asarray(_losses(jnp.asarray(train), y))}
    tests = (recorder.x_test,) if recorder.x_test is not None else ()
    looks = [
        _look(f)(params, x, jnp.asarray(-row / n, y.dtype), *tests)
        for row in pulled.reshape(-1, *y.shape)
    ]
    names = ("motion", "test")[: 1 + len(tests)]
    found |= {
        name: np.stack(values)
        for name, values in zip(names, zip(*jax.device_get(looks), strict=True), strict=True)
    }
    if recorder.points is not None:
        each = recorder.kernel_of(params, seed)
        found |= {k: np.broadcast_to(v, (len(record), *v.shape)) for k, v in each.items()}
    return found


@lru_cache(maxsize=16)
def _outputs(f: Model) -> Callable[..., jax.Array]:
    return compiled(f)


@lru_cache(maxsize=16)
def _product(f: Model) -> Callable[..., jax.Array]:
    return compiled(ntk_operator(f))


@lru_cache(maxsize=16)
def _look(f: Model) -> Callable[..., tuple[jax.Array, ...]]:
    """Relative motion of the parameters that ``v`` pulls, and outputs on test inputs, if any."""

    def look(params, x, v, *x_test):
        change = jax.vjp(lambda p: f(p, x), params)[1](v)[0]
        motion = optax.tree.norm(change) / optax.tree.norm(params)
        moved = [jax.jvp(partial(_swapped, f, each), (params,), (change,)) for each in x_test]
        return motion, *(value + tangent for value, tangent in moved)

    return compiled(look)


def _swapped(f: Model, x: Any, params: Params) -> jax.Array:
    return f(params, x)


@compiled
def _losses(outputs: jax.Array, y: jax.Array) -> jax.Array:
    return jax.vmap(lambda f: mean_loss(squared, f, y))(outputs)
