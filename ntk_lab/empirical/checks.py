"""Checks of values: functions that mix examples, and kernels that are not finite."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.compiled import compiled
from ntk_lab.concrete import is_concrete
from ntk_lab.empirical.arguments import Arguments
from ntk_lab.empirical.structured.build import Program
from ntk_lab.errors import InputError, NumericalError


def check_examples(program: Program, args: Arguments) -> None:
    """Refuse a function whose rows depend on other examples of the batch, by trying a few."""
    if program.checked or not args.concrete or not is_concrete(program.consts):
        return
    inputs, x = args.inputs1, args.x1
    if args.inputs2 is not None and len(args.inputs2[0]) > len(inputs[0]):
        inputs, x = args.inputs2, args.x2
    if len(inputs[0]) < 2 or args.outputs == 0:
        return
    tree = jax.tree.structure(x)
    with jax.ensure_compile_time_eval():  # values may also be known inside a user's jit
        few = [leaf[:3] for leaf in inputs]
        together, alone = _values(args.f, program, args.params, args.leaves, tree, few)
    scale = np.abs(alone).max()
    tolerance = 3 * float(jnp.finfo(args.dtype).eps) ** 0.5
    differs = np.abs(together - alone).max()
    if np.isfinite(scale) and np.isfinite(differs) and differs > tolerance * scale:
        raise InputError(
            "f mixes the examples of a batch: outputs of a batch of "
            f"{len(few[0])} differ by {differs / scale if scale else differs:.2g} (relative) from "
            "those of its examples alone. Kernels are of functions of one example. Freeze batch "
            "statistics (BatchNorm in inference mode) and do not normalize over the batch."
        )
    program.checked = True


def _values(f, program, params, leaves, tree, few) -> tuple[np.ndarray, np.ndarray]:
    n = len(few[0])

    @compiled(once=True)
    def both(params, leaves, few):
        together = f(params, jax.tree.unflatten(tree, few)).reshape(n, -1)
        return together, jax.vmap(lambda *e: program.evaluate(leaves, e))(*few)

    together, alone = both.lower(params, leaves, few).compile()(params, leaves, few)
    return np.asarray(together, np.float64), np.asarray(alone, np.float64)


class Named(Protocol):
    """Parameters with their paths."""

    @property
    def leaves(self) -> Sequence[Any]:
        """As a list."""
        ...

    @property
    def paths(self) -> Sequence[str]:
        """Of each."""
        ...


def finite(kernel: Any) -> bool:
    """Whether all values of an array are finite."""
    if jax.default_backend() != "cpu":
        return bool(_all_finite(kernel))
    values = np.asarray(kernel).reshape(-1)
    # One pass at the rate of memory, many times faster than looking at each value; only if the
    # sum of squares is not finite, which may be for large values, is there need for that.
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(values, values))) or bool(np.isfinite(values).all())


@compiled
def _all_finite(kernel: jax.Array) -> jax.Array:
    return jnp.isfinite(kernel).all()


def check_finite(kernel: Any, args: Named) -> None:
    """Refuse kernels with NaN or infinity, and say where they may come from."""
    if not is_concrete(kernel) or finite(kernel):
        return
    bad = [
        args.paths[i] or "params"
        for i, leaf in enumerate(args.leaves)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        and is_concrete(leaf)
        and not bool(jnp.isfinite(leaf).all())
    ]
    cause = (
        f"the parameters {', '.join(bad)} hold NaN or infinity."
        if bad
        else "the function or its gradient over- or underflows, or inputs hold NaN. Look at "
        "f(params, x) and its gradient on single examples."
    )
    count = int((~jnp.isfinite(kernel)).sum())
    raise NumericalError(f"{count} of {kernel.size} entries are not finite: {cause}")
