"""Compiled calls of several tasks at the same time, everything else in the calling thread."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

Call = Callable[[], Any]
Task = Generator[Call, Any, None]


def run_all(tasks: Iterable[Task], workers: int) -> None:
    """Run tasks to their ends, ``workers`` at a time.

    A task yields calls that need no more than compiled programs, is sent their results, and does
    the rest of its work between them, in the thread that called this function: tracing depends on
    settings that belong to threads, and what a task calls need not be safe to call from several.
    """
    if workers == 1:
        for task in tasks:
            _run(task)
        return
    waiting = iter(tasks)
    running: dict[Future, Task] = {}
    with ThreadPoolExecutor(workers) as pool:

        def submit(task: Task, result: Any) -> bool:
            with suppress(StopIteration):
                running[pool.submit(task.send(result))] = task
                return True
            return False

        def fill() -> None:
            while len(running) < workers:
                task = next(waiting, None)
                if task is None:
                    return
                submit(task, None)

        fill()
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                if not submit(task, future.result()):
                    fill()


def _run(task: Task) -> None:
    result = None
    with suppress(StopIteration):
        while True:
            result = task.send(result)()
