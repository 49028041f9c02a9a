"""Ensembles of real networks: every seed's run in compiled loops, trajectories recorded."""

import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ntk_lab.errors import InputError, StabilityError
from ntk_lab.losses import Loss, read_loss
from ntk_lab.processes import read_mesh, together
from ntk_lab.progress import Progress
from ntk_lab.train.arguments import check, numbers_of, read_arrays, refuse_spread
from ntk_lab.train.batches import order_key
from ntk_lab.train.devices import on_host, spread, without_mesh
from ntk_lab.train.groups import read_memory, unlooped
from ntk_lab.train.program import Model, Params, count, program
from ntk_lab.train.record import Kernel, Recorder, check_kernel
from ntk_lab.train.run import Run
from ntk_lab.train.schedule import check_record
from ntk_lab.train.sites import sites_of
from ntk_lab.train.store import Store, settings_of
from ntk_lab.train.trajectory import Trajectory
from ntk_lab.train.work import run_all


def squared_loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """``1/(2n) sum_i |f(x_i) - y_i|^2``: mean over examples, sum over outputs."""
    return jnp.sum((outputs - y) ** 2) / (2 * len(y))


def ensemble(
    f: Model,
    params: Params,
    x_train: Any,
    y_train: jax.Array,
    x_test: Any = None,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    record: tuple[int, ...] | None = None,
    loss: str | Loss = "squared",
    batch_size: int | None = None,
    key: jax.Array | None = None,
    linearized: bool = False,
    kernel_points: Any = None,
    kernel: Kernel = "combined",
    sharpness: bool = False,
    keep_params: bool | Literal["ends"] = False,
    seeds: tuple[int, ...] | None = None,
    memory: float | str | None = None,
    folder: str | os.PathLike | None = None,
    mesh: Mesh | None = None,
    progress: Callable[[Progress], object] | None = None,
    divergence: Literal["warn", "raise", "record"] = "warn",
) -> Trajectory:
    """Train copies of a network from different initial parameters, in one compiled program.

    Parameters
    ----------
    f
        Any ``f(params, x)`` with outputs ``(n, C)``: of a pair, of a model of another library
        through `ntk_lab.interop`, or a function of one's own.
    params
        Initial parameters, a pytree with seeds on the first axis of every leaf:
        ``jax.vmap(lambda k: net.init(k, shape))(jax.random.split(key, seeds))``.
    x_train, y_train, x_test
        Inputs ``(n, *shape)`` of any dtype, targets ``(n, C)``, and test inputs.
    optimizer
        Any optax optimizer. ``optax.sgd(lr)`` on the full batch is gradient descent, time
        ``t = lr * steps``.
    steps, record
        Number of updates, and after which of them to record; default log-spaced.
    loss
        A name or function of `ntk_lab.losses`; its mean over examples is trained.
    batch_size, key
        Examples in each mini-batch, drawn without replacement in an order that is shuffled every
        epoch by ``key``, the same for all seeds (`batch_order`); default the full batch. What
        does not fill a batch is left out of the epoch.
    linearized
        Train the network's linearization around its initial parameters instead. For plain
        gradient descent on the squared loss `linearized_descent` is many times faster.
    kernel_points, kernel
        Inputs on which to record the empirical NTK, and what of it: ``"combined"``, that of one
        combination ``<v, f>`` of the outputs, ``v`` a random unit vector a seed; ``"trace"``, the
        mean over outputs; ``"full"``; or a `Sketch` with its standard error.
    sharpness
        Record the largest eigenvalues of the Hessian of the training loss and of the NTK, to a
        residual of 1e-3 of them (see `ntk_lab.train.sharpness`).
    keep_params
        Record parameters too: at every recorded step, or ``"ends"`` for the first and last.
    seeds
        Numbers that tell the copies apart in what is random to each, default 0, 1, ...: a seed
        has the same numbers whichever others run beside it.
    memory
        Bytes, or a text such as ``"2GB"``, that training may take beside ``params``, the data and
        the result, which is kept in NumPy arrays. Fewer seeds run at once where it is short. With
        a mesh, on each device.
    folder
        Keep the state of every run there from time to time, and go on from it: the numbers are
        those of a run that was never interrupted, bit by bit. Each of several processes keeps its
        own seeds, in one folder if they see the same disk.
    mesh
        Of one axis: each device trains its share of the seeds, in the order of the mesh; those of
        one process, or of all processes after ``jax.distributed.initialize``. All processes then
        give the same arguments, and all of them get the whole trajectory. ``params`` may be
        spread over devices already.
    progress
        Called with a `Progress` between pieces of the work, every few seconds; each of several
        processes tells of its own seeds.
    divergence
        What to do where a loss is no longer finite: ``"warn"``, ``"raise"`` an error whose
        ``result`` is the trajectory, or only ``"record"`` it in ``Trajectory.diverged``. Other
        seeds are trained to their end in each case.

    Returns
    -------
    Trajectory
        NumPy arrays in the dtype of the outputs.

    Raises
    ------
    InputError
        Shapes that do not fit, a batch larger than the data, or a batch without ``key``; a memory
        limit that is too small for one seed; a folder that holds another run; a mesh of several
        axes, or of some but not all processes; ``params`` on several devices without ``mesh``.
        An error in one of several processes is raised in all, after seeds of the others are done.
    StabilityError
        With ``divergence="raise"``.

    Notes
    -----
    Cost per step and seed: one forward and one backward pass; about 1.5 times that when
    linearized. On CPUs seeds run side by side, one a core, and only small networks are vectorised
    over seeds; networks with convolutions are driven step by step, which compiled loops would slow
    down many times. Each recorded step evaluates all outputs, and sharpness takes some 20 to 200
    gradients.

    Over ``D`` devices the time is that of ``ceil(seeds / D)`` seeds, and nothing is exchanged but
    the result at the end. Every device holds the data and compiles programs of its own, at the
    same time; what is recorded is evaluated for one device of a process after the other. A seed's
    numbers are those without a mesh, bit by bit where as many seeds are vectorised (none on CPUs
    unless networks are small), else to the rounding of sums in another order.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, ntk_lab as ntk, optax
    >>> x, y = jnp.eye(2), jnp.ones((2, 1))
    >>> run = ntk.train.ensemble(
    ...     lambda w, x: x @ w, jnp.zeros((3, 2, 1)), x, y, optimizer=optax.sgd(1.0), steps=2
    ... )
    >>> print(run.steps, run.loss[0])
    [1 2] [0.125   0.03125]
    """
    record = check_record(steps, record)
    check_kernel(kernel)
    if keep_params not in (True, False, "ends") or divergence not in ("warn", "raise", "record"):
        raise InputError(
            f"keep_params={keep_params!r}, divergence={divergence!r}; choose True, False or "
            "'ends', and 'warn', 'raise' or 'record'."
        )
    limit = read_memory(memory)
    if mesh is None:
        refuse_spread(params)
    else:
        mesh = read_mesh(mesh, "seeds")
    read = jnp.asarray if mesh is None else on_host
    arrays = read_arrays(params, x_train, y_train, x_test, kernel_points, read)
    params, x_train, y_train, x_test, kernel_points = arrays
    y_train = check(f, params, x_train, y_train, x_test, batch_size)
    if batch_size is not None and key is None:
        raise InputError("mini-batches are drawn at random: pass key=jax.random.key(...).")
    key = jax.random.key(0) if key is None else key
    total = count(params)
    seeds = numbers_of(seeds, total)
    batch = None if batch_size in (None, count(x_train)) else batch_size
    more = {"record": list(record), "seeds": list(seeds), "keep_params": str(keep_params)}
    where = spread(mesh, total)
    with nullcontext() if mesh is None else without_mesh():
        looped = not unlooped(f, params, x_train, where.on_cpu)
        made = program(f, optimizer, read_loss(loss), batch, linearized, looped)
        recorder = Recorder(
            made, x_train, y_train, x_test, kernel_points, kernel, sharpness,
            jax.random.split(key)[1], count(x_train), None,
        )  # fmt: skip
        with together(where.many):
            store = None
            if folder is not None:
                store = Store(folder, settings_of(made, recorder, params, key, more))
            sites = sites_of(where, made, recorder, params, order_key(key), limit)
        run = Run(made, sites, params, seeds, record, keep_params, store, progress)
        with together(where.many):
            run_all(run.queues(), sites[0].groups.workers if sites else 1)
        run.report("done")
        found = run.trajectory(where)
    return _told(found, seeds, divergence)


def _told(trajectory: Trajectory, seeds: tuple[int, ...], divergence: str) -> Trajectory:
    """The trajectory, after saying which seeds diverged."""
    bad = [
        f"seed {seed} from step {step}"
        for seed, step in zip(seeds, trajectory.diverged, strict=True)
        if step >= 0
    ]
    if not bad or divergence == "record":
        return trajectory
    text = (
        f"training diverged: the loss is not finite for {', '.join(bad)} on. What was recorded "
        "before is kept, the rest is NaN. Use a smaller learning rate, or look at the data and the "
        "loss for what is not finite."
    )
    if divergence == "raise":
        error = StabilityError(text)
        error.result = trajectory  # type: ignore[attr-defined]
        raise error
    warnings.warn(text, RuntimeWarning, stacklevel=3)
    return trajectory
