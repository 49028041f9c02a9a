"""Leave out the parts of intermediate arrays that cannot reach the output.

A network that is read out at its last position computes, in its last block, every position of
the queries and of the feed-forward layers for nothing. Going backward through a flat list of
operations, each array gets the box (an interval an axis) that later operations need; the list is
then traced again on arrays of that size. Operations without a rule need all of their operands.
"""

from collections.abc import Sequence
from typing import Any

import jax

from ntk_lab.empirical.structured.boxes import Box, cut, hull, whole
from ntk_lab.empirical.structured.narrow_rules import Narrowing, narrowing
from ntk_lab.equations import is_literal


def narrowed(closed: Any, consts: Sequence[Any], args: Sequence[Any]) -> Any:
    """The same function with every array cut to what reaches its outputs."""
    jaxpr = closed.jaxpr
    needs, plans = _needs(jaxpr)

    def run(*values):
        env: dict[Any, tuple[Any, Box]] = {}
        known = zip(jaxpr.constvars, closed.consts, strict=True)
        for var, value in [*known, *zip(jaxpr.invars, values, strict=True)]:
            env[var] = (value, whole(var))

        def read(atom, box):
            if is_literal(atom):
                return atom.val
            value, held = env[atom]
            return cut(value, held, box)

        for equation in jaxpr.eqns:
            plan = plans.get(id(equation))
            if plan is None:
                continue
            operands = [read(a, b) for a, b in zip(equation.invars, plan.operands, strict=True)]
            results = plan.compute(operands)
            for var, result in zip(equation.outvars, results, strict=True):
                held = plan.produced if len(equation.outvars) == 1 else whole(var)
                need = needs.get(var)
                if need is not None:
                    env[var] = (cut(result, held, need), need)
        return [read(v, whole(v)) for v in jaxpr.outvars]

    return jax.make_jaxpr(run)(*consts, *args)


def _needs(jaxpr: Any) -> tuple[dict[Any, Box], dict[int, Narrowing]]:
    needs: dict[Any, Box] = {v: whole(v) for v in jaxpr.outvars if not is_literal(v)}
    plans: dict[int, Narrowing] = {}
    for equation in reversed(jaxpr.eqns):
        boxes = [needs.get(v) for v in equation.outvars]
        if all(b is None for b in boxes) and not equation.effects:
            continue
        plan = narrowing(equation, boxes)
        plans[id(equation)] = plan
        for atom, box in zip(equation.invars, plan.operands, strict=True):
            if not is_literal(atom) and box is not None:
                needs[atom] = hull(needs.get(atom), box)
    return needs, plans
