"""Compiled calls of several tasks at the same time, everything else in the calling thread."""

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

Call = Callable[[], Any]
Task = Generator[Call, Any, None]


def run_all(queues: Sequence[Iterable[Task]], workers: int) -> None:
    """Run the tasks of all queues to their ends, ``workers`` of each queue at a time.

    A task yields calls that need no more than compiled programs, is sent their results, and does
    the rest of its work between them, in the thread that called this function: tracing depends on
    settings that belong to threads, and what a task calls need not be safe to call from several.
    """
    if workers * len(queues) <= 1:
        for queue in queues:
            for task in queue:
                _run(task)
        return
    waiting = [iter(queue) for queue in queues]
    running: dict[Future, tuple[Task, int]] = {}
    with ThreadPoolExecutor(workers * len(queues)) as pool:

        def submit(task: Task, place: int, result: Any) -> bool:
            with suppress(StopIteration):
                running[pool.submit(task.send(result))] = task, place
                return True
            return False

        def begin(place: int) -> None:
            for task in waiting[place]:
                if submit(task, place, None):
                    return

        for _ in range(workers):
            for place in range(len(queues)):
                begin(place)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, place = running.pop(future)
                if not submit(task, place, future.result()):
                    begin(place)


def _run(task: Task) -> None:
    result = None
    with suppress(StopIteration):
        while True:
            result = task.send(result)()
