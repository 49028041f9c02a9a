"""What each device needs for its share of the seeds: data, compiled programs, a plan."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax

from ntk_lab.train.devices import Spread, put
from ntk_lab.train.groups import Groups, lower, plan_groups, shapes
from ntk_lab.train.program import Program
from ntk_lab.train.record import Recorder


@dataclass(frozen=True)
class Site:
    """A device, or None for the default one, with its compiled program, its data and its seeds."""

    device: Any
    groups: Groups
    recorder: Recorder
    key: jax.Array
    places: list[int]


def sites_of(
    where: Spread, program: Program, recorder: Recorder, params: Any, key: jax.Array,
    memory: float | None,
) -> list[Site]:  # fmt: skip
    """A plan for the largest share of any device, on all devices of this process."""
    if not where.devices:
        return []
    here = [_moved(recorder, device) for device in where.devices]
    keys = [put(key, device) for device in where.devices]
    cores_each = -(-cores() // len(here)) if where.on_cpu else None
    most = shapes(params, where.largest)
    first = plan_groups(program, most, here[0].x, here[0].y, keys[0], memory, cores_each)
    # Programs belong to a device; tracing belongs to this thread, and compiling takes the time.
    lowered = [
        lower(program, params, first.size, recorder.x, recorder.y, key)
        for recorder, key in zip(here[1:], keys[1:], strict=True)
    ]
    with ThreadPoolExecutor(len(here)) as pool:
        runs = [first.run, *pool.map(lambda program: program.compile(), lowered)]
    return [
        Site(
            device,
            replace(first, run=run),
            replace(own, block=first.block, memory=first.left),
            own_key,
            places,
        )
        for device, run, own, own_key, places in zip(
            where.devices, runs, here, keys, where.shares, strict=True
        )
    ]


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _moved(recorder: Recorder, device: Any) -> Recorder:
    names = ("x", "y", "x_test", "points", "key")
    return replace(recorder, **{name: put(getattr(recorder, name), device) for name in names})
