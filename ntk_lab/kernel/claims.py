"""Who computes which tile, when several processes fill one folder."""

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

from ntk_lab.locks import is_held, locked, me


class Claims:
    """Claims of this process on pieces of work that it shares with others.

    A claim is a second name (a hard link) of a file on which its process holds a lock. Making one
    either works or fails as a whole, and as the system lets go of locks when a process ends, the
    claims of a process that was lost are seen to be free at once.

    Parameters
    ----------
    folder
        Where the claims are; the processes need not be on one machine, if its locks reach them.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._own = folder / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    @contextlib.contextmanager
    def opened(self) -> Iterator["Claims"]:
        """Take part; on leaving, nothing is claimed any more."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._own, f"is {me()}"):
            try:
                yield self
            finally:
                self._own.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are still at work
            if not any(self._folder.glob(f"{socket.gethostname()}-*")):
                (self._folder / "begin").unlink(missing_ok=True)
            self._folder.rmdir()

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """One process at a time, the others wait."""
        return locked(self._folder / "begin", "begins", wait=True)

    def take(self, name: str) -> bool:
        """Claim a piece of work; False if a living process has claimed it."""
        claim = self._folder / name
        try:
            os.link(self._own, claim)
        except FileExistsError:
            if is_held(claim):
                return False
            # Two processes may both replace a claim that is free: the piece is computed twice.
            again = self._folder / f"{name}-{uuid.uuid4().hex[:8]}"
            os.link(self._own, again)
            again.replace(claim)
        return True

    def give(self, name: str) -> None:
        """Let go of a piece of work, done or not."""
        (self._folder / name).unlink(missing_ok=True)
