"""``ntk-lab regress``: kernel ridge regression on data in files."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ntk_lab.cli_data import read, size, targets
from ntk_lab.cli_network import add_architecture, architecture


# fmt: off
def add_parser(commands: Any) -> None:
    """Describe the command."""
    regress = commands.add_parser(
        "regress",
        help="kernel ridge regression, of any size, within a memory limit",
        description="Fit targets by kernel ridge regression with a network's infinite-width "
        "kernel, and predict a test set.",
        epilog="Example: ntk-lab regress data.npz:x data.npz:y --ridge 0.01 --test data.npz:x_test "
        "--test-targets data.npz:y_test --memory 8GB --output fit. "
        "coefficients.npz holds all that predictions need beside X: network (JSON, for "
        "ntk_lab.nn.from_json), which, coefficients a and the numbers of their examples: outputs "
        "are K(x, X[examples]) a, or for random features phi(x) a, with phi = "
        "ntk_lab.kernel.random_features(net, X, which=which, count=features, "
        "key=jax.random.key(seed)); features is 0 where there are none. Also ridge, time (inf: "
        "trained to the end), method, relative_residual.",
    )
    group = regress.add_argument_group("data")
    add = group.add_argument
    add("x", metavar="X", help="inputs (n, *shape), channels last: .npy, .npz[:name] or Zarr")
    add("y", metavar="Y", help="targets (n, outputs) or (n,); integers (n,) are classes")
    add("--test", metavar="X", help="inputs to predict")
    add("--test-targets", metavar="Y", help="what they should be, for an error")
    add_architecture(regress.add_argument_group("network"))
    add = regress.add_argument_group("regression").add_argument
    add("--which", choices=("ntk", "nngp"), default="ntk", help="kernel (default: %(default)s)")
    add("--ridge", type=float, required=True, metavar="X", help="added to the kernel's diagonal")
    add("--method", choices=("auto", "cholesky", "cg", "nystrom", "features"),
        default="auto",
        help="(default: %(default)s, which says why)")
    add("--tol", type=float, metavar="X",
        help="bound on the relative residual (default: 1e-5, in float64 1e-9)")
    add("--centres", type=int, metavar="N", help="examples as centres of nystrom (default: 4096)")
    add("--features", type=int, default=4096, metavar="N",
        help="random features of features (default: %(default)s)")
    add("--time", type=float, metavar="T",
        help="learning rate x steps of gradient flow (default: trained to the end)")
    add("--memory", type=size, metavar="SIZE",
        help="such as 8GB; the data do not count (default: half of what is free)")
    add("--store", type=Path, metavar="FOLDER", help="keep the kernel on disk here")
    add("--output", type=Path, required=True, metavar="FOLDER",
        help="for coefficients.npz, predictions.npy, and the state of a solve")
    add("--resume", action="store_true", help="go on with what is in the folders already")
    add("--key", type=int, default=0, metavar="N", help="seed of random draws (default: 0)")
    regress.set_defaults(run=run, goodbye=goodbye)
# fmt: on


def goodbye(args: argparse.Namespace) -> str:
    """What is said after Ctrl-C."""
    if not _has_state(args):
        return "This method keeps no state; a kernel in --store is found again."
    return f"What was finished is kept in {args.output}: --resume goes on from there."


def run(args: argparse.Namespace, argv: Sequence[str]) -> str:
    """Fit and predict, and return what is printed."""
    from ntk_lab.cli_progress import steady
    from ntk_lab.errors import InputError
    from ntk_lab.predict import regress

    for folder in (args.output, args.store):
        if folder is not None and folder.exists() and not args.resume:
            raise InputError(
                f"{folder} exists already. Go on with it by --resume, or give another."
            )
    if args.test_targets is not None and args.test is None:
        raise InputError("--test-targets needs --test.")
    _make_folder(args.output)
    x, (y, classes) = read(args.x), targets(read(args.y))
    net = architecture(args, tuple(x.shape[1:]))
    with steady("passes") as show:
        found = regress(
            net, x, y, ridge=args.ridge, which=args.which, method=args.method, tol=args.tol,
            memory=args.memory, centres=args.centres, store=args.store, seed=args.key,
            checkpoint=args.output / "state" if _has_state(args) else None, time=args.time,
            features=args.features, progress=lambda p: show(p.done, p.total, p.message),
        )  # fmt: skip
    np.savez(
        args.output / "coefficients.npz",
        coefficients=found.coefficients,
        relative_residual=found.relative_residual,
        examples=_examples(found, x.shape[0]),
        network=net.to_json(),
        which=found.which,
        method=found.method,
        ridge=found.ridge,
        time=np.inf if args.time is None else args.time,
        seed=args.key,
        features=0 if found.features is None else args.features,
    )
    lines = [str(found)]
    if args.test is not None:
        predicted = np.asarray(found.predict(read(args.test)))
        np.save(args.output / "predictions.npy", predicted)
        lines.append(f"predictions: {args.output / 'predictions.npy'}, {predicted.shape}")
        if args.test_targets is not None:
            lines.append(_error(predicted, read(args.test_targets), classes))
    return "\n".join(lines)


def _has_state(args: argparse.Namespace) -> bool:
    """Whether a solve that is interrupted is gone on with."""
    return args.time is None and args.method != "cholesky"


def _examples(found: Any, n: int) -> np.ndarray:
    """Numbers of the examples that coefficients belong to; none for random features."""
    if found.features is not None:
        return np.arange(0)
    return found.details.get("examples", np.arange(n))


def _make_folder(folder: Path) -> None:
    from ntk_lab.errors import InputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the output folder {folder} cannot be written: {error.strerror}. Choose another with "
            "--output, or change its permissions; nothing was computed yet."
        ) from error


def _error(predicted: np.ndarray, wanted: Any, classes: bool) -> str:
    from ntk_lab.errors import InputError

    wanted = np.asarray(wanted)
    if len(wanted) != len(predicted):
        raise InputError(f"--test has {len(predicted)} examples, --test-targets {len(wanted)}.")
    if classes:
        share = float((predicted.argmax(axis=1) == wanted).mean())
        error = (share * (1 - share) / len(wanted)) ** 0.5
        return f"accuracy: {share:.4f} +- {error:.4f}"
    wanted = wanted.reshape(len(wanted), -1)
    return f"root mean square error: {float(np.sqrt(((predicted - wanted) ** 2).mean())):.4g}"
