"""One ensemble while it is trained: groups of seeds from recorded step to recorded step."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ntk_lab.progress import Progress
from ntk_lab.train.devices import Spread, put
from ntk_lab.train.groups import shapes
from ntk_lab.train.program import Carry, Program
from ntk_lab.train.record import Record
from ntk_lab.train.sites import Site
from ntk_lab.train.store import Store
from ntk_lab.train.trajectory import Trajectory
from ntk_lab.train.work import Task

# Seconds of compiled work between looks at progress, interrupts and the disk.
_PIECE = 2.0
_GROWTH = 8  # of a piece over the one before: early ones are measured badly
_PARAMS = "params/"


class Run:
    """Tasks for `run_all` that fill one trajectory."""

    def __init__(
        self,
        program: Program,
        sites: Sequence[Site],
        params: Any,
        seeds: tuple[int, ...],
        record: tuple[int, ...],
        keep_params: bool | Literal["ends"],
        store: Store | None,
        progress: Callable[[Progress], object] | None,
    ):
        self._program, self._sites = program, sites
        self._params, self._seeds, self._steps = params, seeds, record
        self._keep, self._store, self._progress = keep_params, store, progress
        self._found: dict[str, np.ndarray] = {}
        self._diverged = np.full(len(seeds), -1)
        self._done: dict[int, int] = {}

    def queues(self) -> list[list[Task]]:
        """The tasks of each device."""
        return [
            [self._task(members, site) for members in site.groups.split(site.places)]
            for site in self._sites
        ]

    def _task(self, members: list[int], site: Site) -> Task:
        """Train the seeds at these places, from where they were left."""
        seeds = [self._seeds[i] for i in members]
        params0 = self._stack(members, site)
        step, carry = self._begin(members, seeds, params0, site)
        self._report(members, step)
        per_step, length = 0.0, 1
        while step < self._steps[-1] and not self._lost(members):
            ahead = next(s for s in self._steps if s > step)
            high = min(ahead, step + length)
            carry, seconds = yield partial(self._advance, site, carry, params0, step, high)
            per_step, step = seconds / (high - step), high
            length = min(int(_PIECE / max(per_step, 1e-9)) + 1, _GROWTH * length)
            self._note(members, np.asarray(carry.failed))
            if step == ahead:
                self._look(members, seeds, step, carry, params0, site)
            if self._store is not None:
                self._store.save(seeds, step, carry)
            self._report(members, step)
        if step < self._steps[-1]:  # all are lost; what is recorded has its shapes from this
            self._look(members, seeds, self._steps[-1], carry, params0, site)

    def _begin(self, members, seeds, params0, site: Site) -> tuple[int, Carry]:
        """The last state on disk with everything recorded up to it, or the first one."""
        x, zero = site.recorder.x, jnp.int32(0)
        if self._store is not None:
            like = jax.eval_shape(
                self._program.start, shapes(params0, len(seeds)), x, site.key, zero
            )
            found = self._store.load(seeds, like)
            records = self._records(seeds, -1 if found is None else found[0])
            if found is not None and records is not None:
                self._note(members, np.asarray(found[1].failed))
                for at, record in records.items():
                    self._keep_record(members, at, record)
                return found[0], put(found[1], site.device)
        carry = self._program.start(params0, x, site.key, zero)
        # The state is given away at every step, and the initial parameters are still needed.
        carry = carry._replace(params=jax.tree.map(jnp.copy, params0))
        if self._steps[0] == 0:
            self._look(members, seeds, 0, carry, params0, site)
        return 0, carry

    def _records(self, seeds: list[int], step: int) -> dict[int, Record] | None:
        assert self._store is not None
        found = {s: self._store.load_record(seeds, s) for s in self._steps if s <= step}
        whole = {s: record for s, record in found.items() if record is not None}
        return whole if len(whole) == len(found) else None

    def _advance(self, site: Site, carry, params0, low: int, high: int) -> tuple[Carry, float]:
        start, recorder = time.perf_counter(), site.recorder
        pieces = [(low, high)] if self._program.looped else [(i, i + 1) for i in range(low, high)]
        for begin, end in pieces:
            carry = site.groups.run(
                carry, params0, recorder.x, recorder.y, site.key, np.int32(begin), np.int32(end)
            )
        jax.block_until_ready(carry)
        return carry, time.perf_counter() - start

    def _look(self, members, seeds, step: int, carry: Carry, params0, site: Site) -> None:
        record = site.recorder.look(carry.params, params0, seeds)
        if self._keep is True or (self._keep == "ends" and step == self._steps[-1]):
            leaves = jax.tree.leaves(carry.params)
            record |= {f"{_PARAMS}{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        if self._store is not None:
            self._store.save_record(seeds, step, record)
        self._keep_record(members, step, record)

    def _keep_record(self, members: list[int], step: int, record: Record) -> None:
        self._note(members, np.where(np.isfinite(record["loss"]), -1, step))
        at = self._steps.index(step)
        for name, values in record.items():
            array = self._array(name, values[0])
            for place, value in zip(members, values, strict=True):
                if self._diverged[place] < 0 or self._diverged[place] > step:
                    array[place, self._column(name, at)] = value

    def _array(self, name: str, value: np.ndarray) -> np.ndarray:
        if name not in self._found:
            ends = self._keep == "ends" and name.startswith(_PARAMS)
            shape = (len(self._seeds), 2 if ends else len(self._steps), *value.shape)
            self._found[name] = np.full(shape, np.nan, value.dtype)
        return self._found[name]

    def _column(self, name: str, at: int) -> int:
        return 1 if self._keep == "ends" and name.startswith(_PARAMS) else at

    def _note(self, members: list[int], failed: np.ndarray) -> None:
        """Remember the steps at which seeds diverged, the first one of each."""
        for place, step in zip(members, failed, strict=True):
            if step >= 0 and self._diverged[place] < 0:
                self._diverged[place] = step

    def _lost(self, members: list[int]) -> bool:
        return bool((self._diverged[members] >= 0).all())

    def _stack(self, members: list[int], site: Site) -> Any:
        chosen = np.asarray(members)
        return put(jax.tree.map(lambda a: a[chosen], self._params), site.device)

    def _report(self, members: list[int], step: int) -> None:
        self._done[members[0]] = step if not self._lost(members) else self._steps[-1]
        first, last = self._seeds[members[0]], self._seeds[members[-1]]
        span = f"seed {first}" if first == last else f"seeds {first} to {last}"
        self.report(f"{span}, step {step} of {self._steps[-1]}")

    def report(self, message: str) -> None:
        """Say how far everything is."""
        if self._progress is not None:
            groups = sum(len(site.groups.split(site.places)) for site in self._sites)
            size = max((site.groups.size for site in self._sites), default=0)  # all have the same
            total, done = self._steps[-1] * groups * size, sum(self._done.values()) * size
            self._progress(Progress(float(done), float(total), message))

    def trajectory(self, where: Spread) -> Trajectory:
        """Everything recorded, by all processes."""
        found = where.whole(self._found)
        diverged = where.whole({"diverged": self._diverged})["diverged"]
        kept = [found.pop(name) for name in list(found) if name.startswith(_PARAMS)]
        params = None
        if self._keep:
            leaves, tree = jax.tree.flatten(self._params)
            if self._keep == "ends":
                for array, leaf in zip(kept, leaves, strict=True):
                    array[:, 0] = leaf
            params = tree.unflatten(kept)
        always = {name: found.pop(name) for name in ("train", "loss", "motion")}
        sometimes = {"test": None, "ntk": None, **found}
        return Trajectory(
            steps=np.asarray(self._steps), diverged=diverged, params=params,
            **always, **sometimes,
        )  # fmt: skip
