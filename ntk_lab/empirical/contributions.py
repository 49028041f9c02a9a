"""The part of each parameter in an empirical kernel."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.empirical import engine
from ntk_lab.empirical.arguments import Arguments, Select, arguments, cotangents
from ntk_lab.empirical.checks import check_examples, check_finite
from ntk_lab.empirical.ntk import Model, Outputs, Params, Progress, ntk
from ntk_lab.empirical.structured.build import build
from ntk_lab.empirical.tiles import default_memory
from ntk_lab.errors import InputError


def contributions(
    f: Model,
    params: Params,
    x1: Any,
    x2: Any = None,
    *,
    outputs: Outputs | jax.Array | np.ndarray = "full",
    memory: float | None = None,
    progress: Progress | None = None,
    select: Select | None = None,
    group: Callable[[str], str] | None = None,
    path: str | os.PathLike | None = None,
) -> dict[str, jax.Array] | dict[str, np.ndarray]:
    """The part of each parameter, or group of parameters, in the empirical NTK.

    ``Theta = sum_p J_p(x1) J_p(x2)^T`` over parameters ``p``: which part of the network carries
    the kernel.

    Parameters
    ----------
    f, params, x1, x2, outputs, memory, progress, select
        As for :func:`ntk`.
    group
        From the path of a parameter (``"layers/0/w"``) to the name of its group; by default each
        parameter is its own.
    path
        A folder that each kernel is written to, in a folder of the name of its group (``"/"``
        becomes ``"."``), as :func:`ntk` does; what is there is not computed again. ``progress``
        then starts anew for each group.

    Returns
    -------
    dict
        From names, in the order of ``params``, to kernels of the shape that :func:`ntk` returns,
        which add up to it. Parameters that do not matter have zeros. With ``path``, NumPy arrays
        that are read from disk where they are looked at.

    Raises
    ------
    InputError, NumericalError
        As for :func:`ntk`; two groups of one name on disk.

    Notes
    -----
    One pass for all of them; costs as :func:`ntk`, and memory for one result each. With ``path``
    one pass for each group, and no result in memory.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda p, x: x @ p["w"] + p["b"][None]
    >>> p = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    >>> parts = ntk.empirical.contributions(f, p, 2 * jnp.eye(3), outputs="trace")
    >>> {name: float(kernel[0, 0]) for name, kernel in parts.items()}
    {'b': 1.0, 'w': 4.0}
    """
    args = arguments(f, params, x1, x2, select)
    mode, basis, squeeze = cotangents(outputs, args)
    names = {leaf: args.paths[leaf] for leaf in args.selected}
    if group is not None:
        names = {leaf: str(group(name)) for leaf, name in names.items()}
    if path is not None:
        settings = {"outputs": outputs, "memory": memory, "progress": progress}
        return _on_disk(f, args, names, Path(path), settings)
    limit = default_memory() if memory is None else memory
    program = build(f, args.signature(structured=True, merge=False))
    check_examples(program, args)
    job = engine.job(args, program, mode, basis, limit)
    members: dict[str, list[int]] = {name: [] for name in names.values()}
    for number, part in enumerate(job.parts):
        members[names[part.leaf]].append(number)
    present = {name: tuple(group) for name, group in members.items() if group}
    found = dict(zip(present, engine.kernels(job, tuple(present.values()), progress), strict=True))
    n1, n2 = args.sizes
    result = {}
    for name in members:
        kernel = found.get(name)
        if kernel is None:
            kernel = jnp.zeros((n1, n2, *job.trailing), args.dtype)
        check_finite(kernel, args)
        result[name] = kernel[:, :, 0, 0] if squeeze else kernel
    return result


def _on_disk(
    f: Model, args: Arguments, names: dict[int, str], folder: Path, settings: dict[str, Any]
) -> dict[str, np.ndarray]:
    """One kernel after the other, each of the parameters of one group."""
    groups = list(dict.fromkeys(names.values()))
    folders = {name: name.replace("/", ".") or "params" for name in groups}
    if len(set(folders.values())) < len(groups):
        raise InputError(
            f"groups {', '.join(groups)} would share folders {', '.join(folders.values())}; give "
            "them names that differ in more than '/' and '.'."
        )
    tree, count = jax.tree.structure(args.params), len(args.leaves)
    return {
        name: ntk(
            f,
            args.params,
            args.x1,
            args.x2,
            select=tree.unflatten([names.get(leaf) == name for leaf in range(count)]),
            path=folder / folders[name],
            **settings,
        )
        for name in groups
    }
