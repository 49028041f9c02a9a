"""A kernel on disk: one folder, written tile by tile, that an interrupted run goes on with."""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ntk_lab.empirical import engine
from ntk_lab.empirical.tiles import Tiling
from ntk_lab.errors import InputError
from ntk_lab.locks import locked

_SECONDS = 1.0  # between two records of what is done


class Store:
    """A folder with ``kernel.npy``, what the kernel is of, and how many tiles of it are there.

    Tiles come in a fixed order, so that a number says which are done. It is written after what it
    counts, and by replacing a file, so that it never says too much; tiles beyond it are written
    again. Where tiles add up, writing again would be wrong: the sum is put aside first.

    Parameters
    ----------
    path
        The folder, made if it does not exist.
    job
        What is computed, and in which tiles. In a folder with part of a kernel, ``job`` becomes
        that of the part.
    settings
        What the kernel is of, as short texts; a folder with others is refused.
    memory
        Bytes that the caller allows, if there is such a limit.
    """

    def __init__(self, path: Any, job: engine.Job, settings: Mapping[str, str], memory: Any):
        self.folder, self.job, self.done = Path(path), job, 0
        self.shape, self.dtype = (*job.args.sizes, *job.trailing), np.dtype(job.args.dtype)
        self._settings, self._memory = dict(settings), memory
        self._array: Any = None
        self._recorded = time.monotonic()

    @contextlib.contextmanager
    def opened(self) -> Iterator["Store"]:
        """Hold the folder; on leaving, by whatever way, record what is done."""
        with contextlib.ExitStack() as stack:
            with self._explained():
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(self._locked())
                self._begin()
            try:
                yield self
            finally:
                with self._explained():
                    self._record()

    def put(self, place: engine.Place, tile: Any) -> None:
        """Write the next tile."""
        tile = np.asarray(tile)
        with self._explained():
            if engine.adds_up(self.job):
                index, _ = next(engine.images(self.job, place, tile))
                tile = self._array[index] + tile
                self._array.flush()
                self._write_file("sum.npz", lambda file: np.savez(file, tile=tile, at=self.done))
            self._place(place, tile)
            self.done += 1
            if time.monotonic() - self._recorded > _SECONDS:
                self._record()

    def read(self) -> np.ndarray:
        """The kernel, read from disk where it is looked at."""
        with self._explained():
            return np.load(self.folder / "kernel.npy", mmap_mode="r")

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.folder / "lock", f"computes the kernel in {os.fspath(self.folder)!r}")

    def _place(self, place: engine.Place, tile: np.ndarray) -> None:
        for index, values in engine.images(self.job, place, tile):
            self._array[index] = values

    def _begin(self) -> None:
        manifest = self.folder / "settings.json"
        if manifest.exists():
            self._go_on(self._json(manifest))
        else:
            others = sorted(p.name for p in self.folder.iterdir() if p.name != "lock")
            if others:
                raise InputError(
                    f"the folder {os.fspath(self.folder)!r} holds {others[0]!r}, and no kernel. "
                    "Give a folder that is new or empty."
                )
            about = {"settings": self._settings, "tiling": asdict(self.job.tiling)}
            text = json.dumps(about, indent=1, sort_keys=True).encode()
            self._write_file(manifest.name, lambda file: file.write(text))
        self._open_array()

    def _go_on(self, about: dict) -> None:
        found = about["settings"]
        names = found.keys() | self._settings.keys()
        different = sorted(k for k in names if found.get(k) != self._settings.get(k))
        if different:
            raise InputError(
                f"the folder {os.fspath(self.folder)!r} holds another kernel: "
                f"{', '.join(different)} differ. Give another folder, or delete this one."
            )
        tiling = Tiling(**about["tiling"])
        if self._memory is not None and tiling.bytes > self._memory:
            raise InputError(
                f"the kernel in {os.fspath(self.folder)!r} was begun in tiles that take "
                f"{tiling.bytes:,.0f} bytes, but memory={self._memory:,.0f}. Allow at least "
                f"{tiling.bytes:,.0f} bytes to go on, or give another folder."
            )
        self.job = replace(self.job, tiling=tiling)
        progress = self.folder / "progress.json"
        self.done = int(self._json(progress)["done"]) if progress.exists() else 0

    def _open_array(self) -> None:
        path = self.folder / "kernel.npy"
        if not path.exists():
            self.done = 0
            (self.folder / "sum.npz").unlink(missing_ok=True)
            part = path.with_suffix(".part")
            np.lib.format.open_memmap(part, "w+", self.dtype, self.shape).flush()
            _reserve(part)
            part.replace(path)
        try:
            self._array = np.lib.format.open_memmap(path, "r+")
        except ValueError as error:
            raise self._damaged(path) from error
        if self._array.shape != self.shape or self._array.dtype != self.dtype:
            raise self._damaged(path)
        aside = self.folder / "sum.npz"
        if aside.exists() and engine.adds_up(self.job):
            with np.load(aside) as file:
                at, tile = int(file["at"]), file["tile"]
            self._place(next(itertools.islice(engine.places(self.job), at, None)), tile)
            self.done = at + 1

    def _record(self) -> None:
        if self._array is None:
            return
        self._array.flush()
        total = engine.tiles(self.job)
        text = json.dumps({"done": self.done, "of": total}).encode()
        self._write_file("progress.json", lambda file: file.write(text))
        self._recorded = time.monotonic()
        if self.done == total:
            (self.folder / "sum.npz").unlink(missing_ok=True)

    def _write_file(self, name: str, write: Any) -> None:
        """A file that appears whole or not at all."""
        part = self.folder / f"{name}.part"
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / name)

    def _json(self, path: Path) -> dict:
        try:
            return dict(json.loads(path.read_text()))
        except ValueError as error:
            raise self._damaged(path) from error

    def _damaged(self, path: Path) -> InputError:
        return InputError(
            f"{os.fspath(path)!r} is damaged, so that the kernel cannot be trusted. Delete the "
            "folder, or give another one."
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"the folder {os.fspath(self.folder)!r} cannot be used: "
                f"{error.strerror or error}. Make room, change its permissions, or give another "
                "folder; what was recorded in it is kept."
            ) from error


def _reserve(path: Path) -> None:
    """Claim all room now: a full disk under a memory map ends the process without a word."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError:
            path.unlink()
            raise
