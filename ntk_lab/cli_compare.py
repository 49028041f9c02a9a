"""``ntk-lab compare``: a thin skin over ``ntk_lab.compare``."""

import argparse
import importlib
import inspect
import os
import shlex
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntk_lab.cli_network import add_network, fully_connected

if TYPE_CHECKING:
    from ntk_lab.compare import Comparison

_EXTRAS = {"rich": "cli", "matplotlib": "report", "xarray": "report"}


def add_parser(commands: Any) -> None:
    """Describe the command."""
    compare = commands.add_parser(
        "compare",
        help="compare trained networks of several widths with their kernel",
        description="Train fully connected networks of several widths, and say for each whether "
        "kernel regression predicts it, with an error budget and a report. A run that is "
        "interrupted goes on where it stopped when the same command is given again.",
        epilog="Example: ntk-lab compare --data digits --widths 64 128 256 512 1024",
    )
    _add_problem(compare.add_argument_group("data and network"))
    _add_training(compare.add_argument_group("training"))
    _add_statements(compare.add_argument_group("statements and output"))
    compare.set_defaults(run=run, goodbye=goodbye)


def goodbye(args: argparse.Namespace) -> str:
    """What is said after Ctrl-C."""
    args.output = _output(args)
    return f"Finished runs are kept in {args.output}: the same command goes on from there."


def run(args: argparse.Namespace, argv: Sequence[str]) -> str:
    """Compare, write the report, and return what is printed."""
    from ntk_lab.cli_progress import say

    args.output = _output(args)
    comparison = _compare(args)
    say(f"Writing the report to {args.output}")
    page = _report(comparison, args.output, shlex.join(["ntk-lab", *argv]))
    return f"{comparison}\n\nReport: {page}"


def _output(args: argparse.Namespace) -> Path:
    return Path(args.output or f"reports/{args.data}-{args.parameterization}")


# fmt: off
def _add_problem(group: Any) -> None:
    add = group.add_argument
    add("--data", default="digits", metavar="NAME",
        help="data set of ntk_lab.data (default: %(default)s)")
    add("--train", type=int, default=256, metavar="N",
        help="training examples (default: %(default)s)")
    add("--test", type=int, default=512, metavar="N", help="test examples (default: %(default)s)")
    add_network(add)
    add("--parameterization", default="ntk", metavar="NAME",
        help="ntk, standard, mean_field or mup (default: %(default)s)")
    add("--widths", type=int, nargs="+", default=[64, 256, 1024], metavar="N",
        help="neurons in each hidden layer, rising (default: 64 256 1024)")


def _add_training(group: Any) -> None:
    add = group.add_argument
    add("--seeds", type=int, default=5, metavar="N",
        help="networks trained at each width (default: %(default)s)")
    add("--steps", type=int, default=500, metavar="N", help="updates (default: %(default)s)")
    add("--learning-rate", type=float, metavar="X",
        help="in units of NTK parameterization, where time = learning rate x steps (default: "
        "0.02 of the stability limit 2 / lambda_max)")
    add("--optimizer", choices=("sgd", "momentum", "adam"),
        help="what the network is really trained with: sgd; momentum, heavy ball of 0.9 at a "
        "tenth of the learning rate, so that time is the same; or adam (default: full-batch "
        "gradient descent, and sgd where --batch-size is given)")
    add("--adam-rate", type=float, default=1e-3, metavar="X",
        help="learning rate of adam, the same at every width (default: %(default)s)")
    add("--batch-size", type=int, metavar="N",
        help="examples in a mini-batch (default: all of them)")
    add("--key", type=int, default=0, metavar="N",
        help="seed of all randomness: examples drawn, parameters, batches (default: %(default)s)")
    add("--x64", action="store_true", help="compute in float64 (default: float32)")


def _add_statements(group: Any) -> None:
    add = group.add_argument
    add("--tolerance", type=float, default=0.15, metavar="X",
        help="gap, as a share of how far the function moved, that counts as agreement "
        "(default: %(default)s)")
    add("--confidence", type=float, default=0.95, metavar="X",
        help="level of verdicts and intervals, between 0.5 and 1 (default: %(default)s)")
    add("--output", metavar="FOLDER",
        help="of the report and of finished runs (default: reports/DATA-PARAMETERIZATION)")
# fmt: on


def _compare(args: argparse.Namespace) -> "Comparison":
    for module, extra in _EXTRAS.items():
        _require(module, extra)
    _check_folder(args.output)
    import jax

    import ntk_lab as ntk
    from ntk_lab.cli_progress import progress

    with jax.enable_x64(True) if args.x64 else nullcontext():
        train, test, outputs = _load(args)
        net = fully_connected(args, outputs, max(1, args.widths[0]))
        with progress(args.output) as show:
            return ntk.compare(
                net,
                train,
                test,
                widths=tuple(args.widths),
                seeds=args.seeds,
                learning_rate=args.learning_rate,
                steps=args.steps,
                parameterization=args.parameterization,
                optimizer=_optimizer(args),
                batch_size=args.batch_size,
                tolerance=args.tolerance,
                confidence=args.confidence,
                key=args.key,
                folder=args.output,
                progress=show,
            )


def _report(comparison: "Comparison", folder: Path, command: str) -> Path:
    from ntk_lab.compare.report import write_report

    return write_report(comparison, folder, command=command)


def _require(module: str, extra: str) -> None:
    """Fail at once, not after minutes, where something for the report is missing."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"ntk-lab compare needs {module}: pip install 'ntk_lab[{extra}]', or all that it can "
            "use with pip install 'ntk_lab[cli]'."
        ) from error


def _check_folder(folder: Path) -> None:
    from ntk_lab.errors import InputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"the output folder {os.fspath(folder)!r} cannot be written: {error.strerror}. Choose "
            "another with --output, or change its permissions; nothing was computed yet."
        ) from error


def _load(args: argparse.Namespace) -> tuple[Any, Any, int]:
    """Training and test set of ``ntk_lab.data``, and how many outputs a network needs."""
    import numpy as np

    from ntk_lab import data
    from ntk_lab.errors import InputError

    known = {
        name: f
        for name in data.__all__
        if inspect.isfunction(f := getattr(data, name))
        and list(inspect.signature(f).parameters)[:2] == ["train", "test"]
    }
    if args.data not in known:
        raise InputError(f"no data set is called {args.data!r}; there is {', '.join(known)}.")
    found = known[args.data](args.train, args.test, seed=args.key)
    dtype = np.float64 if args.x64 else np.float32
    train, test = ((x.astype(dtype), y) for x, y in found)
    y = np.concatenate([train[1], test[1]])
    if np.issubdtype(y.dtype, np.integer):
        return train, test, int(y.max()) + 1
    return train, test, 1 if y.ndim == 1 else y.shape[1]


def _optimizer(args: argparse.Namespace) -> Callable[[float], Any] | None:
    import optax

    return {
        None: None,
        "sgd": optax.sgd,
        "momentum": lambda rate: optax.sgd(0.1 * rate, momentum=0.9),
        "adam": lambda rate: optax.adam(args.adam_rate),
    }[args.optimizer]
