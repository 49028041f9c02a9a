"""What a kernel will cost, parameter by parameter, before anything is computed."""

from dataclasses import dataclass, replace
from typing import Any

from ntk_lab.empirical import engine
from ntk_lab.empirical.arguments import Select, arguments, check_method, cotangents
from ntk_lab.empirical.ntk import Method, Model, Outputs
from ntk_lab.empirical.structured.build import build
from ntk_lab.empirical.structured.costs import Problem, backward, cost
from ntk_lab.empirical.structured.program import Part
from ntk_lab.empirical.tiles import default_memory
from ntk_lab.empirical.vector_products import cheaper, columns

_FORMS = {
    "gram": "Gram products",
    "mixed": "mixed product",
    "rows": "gradients by matrix product",
    "readout": "gradients by channel",
}
_KINDS = {"direct": "gradients, elementwise", "opaque": "general rule"}


@dataclass(frozen=True)
class ParameterPlan:
    """How the part of one parameter is computed.

    Attributes
    ----------
    path
        Of the parameter, such as ``"layers/0/w"``.
    method
        In words.
    structured
        False where the exact general rule (a Jacobian of this parameter) had to serve.
    operations
        Floating-point operations for the whole kernel, beside the passes through the network.
    bytes
        What is held for it at once.
    reason
        Why it fell back, or what it is computed together with; empty if there is nothing to say.
    """

    path: str
    method: str
    structured: bool
    operations: float
    bytes: float
    reason: str = ""


@dataclass(frozen=True)
class EmpiricalPlan:
    """Plan of an empirical kernel; ``print`` shows it as a table.

    Attributes
    ----------
    parameters
        One entry a parameter that is differentiated by.
    passes
        Operations of the passes through the network.
    operations, bytes
        Of everything, and held at once beside parameters, inputs and the result.
    block, tiles, cotangents
        Examples of a tile along each axis, number of tiles, outputs of each example at once.
    columns
        Operations of products column by column (``method="vector-products"``) where ``"auto"``
        computes the kernel so and not as above; else None.
    """

    parameters: tuple[ParameterPlan, ...]
    passes: float
    operations: float
    bytes: float
    block: int
    tiles: int
    cotangents: int
    columns: float | None = None

    @property
    def fallbacks(self) -> dict[str, str]:
        """From the path of each parameter that is not structured to the reason."""
        return {p.path: p.reason for p in self.parameters if not p.structured}

    def __str__(self) -> str:
        width = max([len("parameter"), *(len(p.path) for p in self.parameters)])
        lines = [f"{'parameter':{width}}  {'method':27}  operations    bytes  remarks"]
        lines += [
            f"{p.path:{width}}  {p.method:27}  {p.operations:10.2g}  {p.bytes:7.1g}  {p.reason}"
            for p in self.parameters
        ]
        lines = [line.rstrip() for line in lines]
        lines.append(
            f"{self.operations:.2g} operations, {self.passes:.2g} of them in passes through the "
            f"network; {self.bytes:.2g} bytes at once; {self.tiles} "
            f"tile{'s' if self.tiles != 1 else ''} of {self.block} examples, "
            f"{self.cotangents} outputs at a time"
        )
        if self.columns is not None:
            lines.append(
                f"computed column by column instead, by vector products: {self.columns:.2g} "
                "operations"
            )
        return "\n".join(lines)


def plan(
    f: Model,
    params: Any,
    x1: Any,
    x2: Any = None,
    *,
    outputs: Outputs | Any = "full",
    method: Method = "auto",
    memory: float | None = None,
    select: Select | None = None,
) -> EmpiricalPlan:
    """How :func:`ntk` would compute a kernel: method and cost of each parameter, tiles, memory.

    Parameters
    ----------
    f, params, x1, x2, outputs, method, memory, select
        As for :func:`ntk`. For ``method="vector-products"`` there is nothing to plan: the plan is
        that of ``"jacobian"``.

    Returns
    -------
    EmpiricalPlan
        Printable; ``fallbacks`` names the parameters without a structured rule and why.

    Raises
    ------
    InputError
        As for :func:`ntk`.

    Notes
    -----
    The function is traced, not evaluated. Operations count multiplications and additions of
    matrix products, and estimate the rest; a dense layer over ``t`` positions is computed by
    gradients (``2 n C t i o`` to form, ``2 n1 n2 C^2 i o`` to multiply), by Gram products
    (``2 n1 n2 t^2 (i + C^2 o)``) or by the mixed form (``2 n1 n2 t (t i + C o (t + C))``),
    whichever takes fewest. arXiv:2206.08720.

    Examples
    --------
    >>> import jax.numpy as jnp, ntk_lab as ntk
    >>> f = lambda p, x: x @ p["w"] + p["s"] ** 2
    >>> plan = ntk.empirical.plan(f, {"w": jnp.ones((3, 2)), "s": jnp.float32(1)}, jnp.eye(3))
    >>> plan.fallbacks
    {'s': 'no rule for its use by integer_pow'}
    """
    check_method(method)
    args = arguments(f, params, x1, x2, select)
    mode, basis, _ = cotangents(outputs, args)
    limit = default_memory() if memory is None else memory
    program = build(f, args.signature(method in ("auto", "structured"), merge=True))
    job = engine.job(args, program, mode, basis, limit)
    described = _described(job)
    if method == "auto" and cheaper(job, limit):
        return replace(described, columns=columns(args, program, len(basis)))
    return described


def _described(job: engine.Job) -> EmpiricalPlan:
    args, problem, tiling = job.args, job.problem, job.tiling
    entries: dict[int, ParameterPlan] = {}
    for part in job.parts:
        shape = args.leaves[part.leaf].shape
        entries[part.leaf] = _entry(args.paths[part.leaf], part, shape, problem, tiling.block)
        for leaf, _ in part.columns:
            remark = f"a column of ones in {args.paths[part.leaf]}"
            entries[leaf] = ParameterPlan(args.paths[leaf], _FORMS[part.form], True, 0, 0, remark)
    for leaf in args.selected:
        unused = ParameterPlan(args.paths[leaf], "none", True, 0, 0, "does not matter")
        entries.setdefault(leaf, unused)
    _, _, forward = backward(job.program.closed)
    passes = forward * (1 + problem.outputs) * problem.examples
    operations = passes + sum(e.operations for e in entries.values())
    return EmpiricalPlan(
        parameters=tuple(entries[leaf] for leaf in args.selected),
        passes=passes,
        operations=operations,
        bytes=tiling.bytes,
        block=tiling.block,
        tiles=engine.tiles(job),
        cotangents=tiling.cotangents,
    )


def _entry(
    path: str, part: Part, shape: tuple[int, ...], problem: Problem, block: int
) -> ParameterPlan:
    found = cost(part, shape, problem)
    method = _KINDS.get(part.kind) or _FORMS[part.form]
    size = problem.itemsize * block * (found.held + 2 * found.late)
    return ParameterPlan(
        path, method, part.kind != "opaque", found.operations(problem), size, part.reason
    )
