"""Execute every notebook of this folder (Jupytext percent scripts); any error fails the run.

``python notebooks/run.py`` runs them all, ``python notebooks/run.py catapult`` those whose names
contain one of the given words, and ``--write`` also rewrites the ``.ipynb`` beside each script,
with its outputs and nothing that differs from run to run.
"""

import argparse
import base64
import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

HERE = Path(__file__).resolve().parent
CELL_TIMEOUT = 600  # seconds
COLOURS = 256  # of a committed figure: a third of the bytes


def scripts() -> list[Path]:
    """The notebooks, in the order of their numbers."""
    found = [path for path in HERE.glob("*.py") if path.name != Path(__file__).name]
    return sorted(found, key=lambda path: int(path.stem.partition("_")[0]))


def execute(path: Path) -> NotebookNode:
    """Run one script as a notebook, in its own folder and in this interpreter's kernel."""
    notebook = jupytext.read(path)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],
        record_timing=False,
    )
    return client.execute()


def settled(notebook: NotebookNode) -> NotebookNode:
    """The same without random identifiers and without what names the machine it ran on."""
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = NotebookNode()
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
                output.metadata = NotebookNode()
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def smaller(png: str) -> str:
    """A figure, in base64, with its most frequent colours; others become the nearest of these."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), np.int32)
    shape = pixels.shape[:2]
    found, where, counts = np.unique(
        pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True
    )
    kept = found[np.argsort(-counts, kind="stable")[:COLOURS]]
    nearest = ((found[:, None] - kept) ** 2).sum(-1).argmin(1).astype(np.uint8)
    image = Image.fromarray(nearest[where].reshape(shape))
    image.putpalette(kept.astype(np.uint8).tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def run(path: Path, write: bool) -> bool:
    """Execute one, say how it went, and return whether it went well."""
    start = time.perf_counter()
    try:
        notebook = execute(path)
    except CellExecutionError as error:
        print(f"== {path.name} failed\n{error}", flush=True)
        return False
    if write:
        nbformat.write(settled(notebook), path.with_suffix(".ipynb"))
    print(f"== {path.name}: {time.perf_counter() - start:.0f} s", flush=True)
    return True


def main(arguments: list[str]) -> int:
    """Execute what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only notebooks whose names contain one of these")
    parser.add_argument("--write", action="store_true", help="rewrite the .ipynb files")
    parser.add_argument(
        "--together", type=int, default=2, metavar="N", help="how many run at a time"
    )
    options = parser.parse_args(arguments)
    words = options.words
    paths = [p for p in scripts() if not words or any(word in p.stem for word in words)]
    if not paths:
        print("There are no notebooks to run." if not words else f"No notebook matches {words}.")
        return 1
    with ThreadPoolExecutor(options.together) as pool:
        ran = list(pool.map(lambda path: run(path, options.write), paths))
    failed = [path.name for path, good in zip(paths, ran, strict=True) if not good]
    print(f"{len(paths) - len(failed)} notebooks ran, {len(failed)} failed {failed or ''}".rstrip())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
