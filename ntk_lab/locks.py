"""Locks on files, by which processes keep out of each other's way."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ntk_lab.errors import InputError

try:  # not on Windows
    import fcntl
except ImportError:
    fcntl = None


@contextlib.contextmanager
def locked(path: Path, what: str, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold a lock on the file ``path``, which is made if it does not exist.

    The operating system lets go of it when the process ends, however it ends: no lock is ever
    stale. The file says who holds it. Locks may be ``shared`` with others that are. With ``wait``
    until it is free.

    Raises
    ------
    InputError
        If another process holds it; ``what`` it does is for the message.
    """
    with path.open("a+") as file:
        if fcntl is not None:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            try:
                fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip()
                raise InputError(
                    f"another process {what}{f' ({holder})' if holder else ''}. Wait for it, or "
                    "give another folder."
                ) from error
        file.seek(0)
        file.truncate()
        file.write(me())
        file.flush()
        yield


def is_held(path: Path) -> bool:
    """Whether a living process holds a lock on the file; False if there is no such file."""
    try:
        with path.open("r+") as file:
            if fcntl is None:
                return False
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except FileNotFoundError:
        return False


def me() -> str:
    """Name of this process, as people and other machines know it."""
    return f"process {os.getpid()} on {socket.gethostname()}"
