"""Execute every notebook of this folder (Jupytext percent scripts); any error fails the run.

``python notebooks/run.py`` runs them all, ``python notebooks/run.py lazy_training`` those whose
names contain the given words.
"""

import sys
import time
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent
CELL_TIMEOUT = 600  # seconds


def execute(path: Path) -> None:
    """Run one script as a notebook, in its own folder and in this interpreter's kernel."""
    notebook = jupytext.read(path)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources=resources,
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute()


def main(words: list[str]) -> int:
    paths = [path for path in sorted(HERE.glob("*.py")) if path.name != Path(__file__).name]
    paths = [path for path in paths if all(word in path.stem for word in words)]
    if not paths:
        print("There are no notebooks to run." if not words else f"No notebook matches {words}.")
        return 1 if words else 0
    failed = []
    for path in paths:
        start = time.perf_counter()
        print(f"== {path.name}", flush=True)
        try:
            execute(path)
        except CellExecutionError as error:
            failed.append(path.name)
            print(error)
        print(f"   {time.perf_counter() - start:.0f} s", flush=True)
    print(f"{len(paths) - len(failed)} notebooks ran, {len(failed)} failed {failed or ''}".rstrip())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
