"""What the command line says while it runs: elapsed time, time left, and what Ctrl-C did."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntk_lab.compare import Progress


def say(text: str) -> None:
    """A line on standard error, which is for people; standard output has the results."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def interruptible(message: str, code: int, patience: float = 1.0) -> Iterator[None]:
    """Let Ctrl-C end the process while compiled code runs, which Python alone cannot interrupt.

    The usual KeyboardInterrupt has ``patience`` seconds to get through; after that ``message`` is
    printed and the process ends with ``code``. Files are written whole or not at all, so nothing
    is lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    done = threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        while os.read(reading, 1) != bytes([signal.SIGINT]):
            if done.is_set():
                return
        if not done.wait(patience):
            show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
            say(show_cursor + message)
            os._exit(code)

    before = signal.set_wakeup_fd(writing)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        done.set()
        os.write(writing, b"\0")
        watcher.join()
        os.close(reading)
        os.close(writing)


class Clock:
    """Elapsed time, and time left from the share of the work that was done in it."""

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self._now = now
        self._start: float | None = None
        self._first = self._done = self._total = self._updated = 0.0

    def update(self, done: float, total: float) -> None:
        """Note how much work is done."""
        self._updated = self._now()
        if self._start is None:
            self._start, self._first = self._updated, done
        self._done, self._total = done, total

    def elapsed(self) -> str:
        """Since the first update, as text."""
        return _clock_text(0.0 if self._start is None else self._now() - self._start)

    def rate(self, unit: str) -> str:
        """How many units of work a second, or what one takes, as text."""
        worked, spent = self._done - self._first, self._updated - (self._start or 0.0)
        if self._start is None or worked <= 0 or spent <= 0:
            return ""
        rate = worked / spent
        return f"{rate:.3g} {unit}/s" if rate >= 1 else f"{1 / rate:.3g} s for each of {unit}"

    def left(self) -> str:
        """Time left as text; ``estimating`` until a first unit of work is done."""
        worked = self._done - self._first
        if self._start is None or worked <= 0:
            return "estimating time left"
        left = (self._updated - self._start) * (self._total - self._done) / worked
        return f"{_clock_text(max(left - (self._now() - self._updated), 0.0))} left"


def _clock_text(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def progress(folder: Path) -> "Iterator[Callable[[Progress], None]]":
    """A live line on a terminal; elsewhere one plain line for each unit of work."""
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    clock, started = Clock(), False
    console = Console(stderr=True)

    class Times(TextColumn):
        def render(self, task: Any) -> Any:
            task.fields["times"] = f"{clock.elapsed()} elapsed, {clock.left()}"
            return super().render(task)

    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        Times("{task.fields[times]}"),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("preparing", total=None)

    def show(p: "Progress") -> None:
        nonlocal started
        clock.update(p.done, p.total)
        share = p.done / p.total
        if not started and p.done > 0:
            bar.console.print(
                f"Found in {folder}: {share:.0%} of the work is finished already.",
                soft_wrap=True, markup=False, highlight=False,
            )  # fmt: skip
        started = True
        bar.update(task, description=p.message, completed=p.done, total=p.total)
        if not console.is_terminal:
            end = "" if p.done == p.total else f", {clock.left()}"
            say(f"{share:4.0%}  {p.message}  ({clock.elapsed()} elapsed{end})")

    with bar:
        yield show


@contextmanager
def steady(unit: str, every: float = 5.0) -> Iterator[Callable[[float, float, str], None]]:
    """Progress of work in equal units: a line every few seconds, with rate and time left.

    ``show(done, total, message)`` is called after each unit; on a terminal the line stays in place.
    """
    clock, last, terminal = Clock(), -every, sys.stderr.isatty()

    def show(done: float, total: float, message: str) -> None:
        nonlocal last
        clock.update(done, total)
        now = time.monotonic()
        if now - last < (0.2 if terminal else every) and done < total:
            return
        last = now
        of = f"{done:g} of {total:g} {unit}" if total > 1 else f"{done:.0%}"
        rate = clock.rate(unit) if total > 1 else ""
        parts = [of, message, rate, f"{clock.elapsed()} elapsed", clock.left()]
        line = ", ".join(part for part in parts if part)
        print(f"\r\x1b[K{line}" if terminal else line, end="" if terminal else "\n",
              file=sys.stderr, flush=True)  # fmt: skip

    try:
        yield show
    finally:
        if terminal:
            print(file=sys.stderr)
