"""``ntk-lab kernel``: a kernel matrix on disk."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ntk_lab.cli_data import read, size
from ntk_lab.cli_network import add_architecture, architecture


# fmt: off
def add_parser(commands: Any) -> None:
    """Describe the command."""
    kernel = commands.add_parser(
        "kernel",
        help="compute the kernels of a network into a folder",
        description="Compute the infinite-width kernels of a network on data into a folder, tile "
        "by tile and within a memory limit. What is interrupted goes on with --resume.",
        epilog="Example: ntk-lab kernel x.npy --depth 3 --which ntk --memory 4GB --output k.zarr",
    )
    add_data(kernel.add_argument_group("data"))
    add_architecture(kernel.add_argument_group("network"))
    group = kernel.add_argument_group("computation and output")
    add_computation(group)
    group.add_argument("--output", type=Path, required=True, metavar="FOLDER",
        help="a Zarr group, with an array for each kernel")
    group.add_argument("--resume", action="store_true",
        help="go on with what is in the folder already")
    group.add_argument("--share", action="store_true",
        help="other processes with the same command compute tiles of it at the same time; implies "
        "--resume")
    kernel.set_defaults(run=run, goodbye=goodbye)


def add_data(group: Any) -> None:
    """Options of inputs."""
    group.add_argument("x", metavar="X",
        help="inputs (n, *shape), channels last: .npy, .npz[:name] or Zarr folder[:name]")
    group.add_argument("--x2", metavar="X2",
        help="other inputs: a rectangular kernel (default: X, and half of a symmetric one)")


def add_computation(group: Any) -> None:
    """Options of computing."""
    group.add_argument("--which", choices=("ntk", "nngp", "both"), default="ntk",
        help="kernel (default: %(default)s)")
    group.add_argument("--memory", type=size, metavar="SIZE",
        help="such as 8GB; the data do not count (default: half of what is free)")
# fmt: on


def names(args: argparse.Namespace) -> tuple[str, ...]:
    """The kernels that are asked for."""
    return ("nngp", "ntk") if args.which == "both" else (args.which,)


def goodbye(args: argparse.Namespace) -> str:
    """What is said after Ctrl-C."""
    return f"Finished tiles are kept in {args.output}: --resume goes on from there."


def run(args: argparse.Namespace, argv: Sequence[str]) -> str:
    """Compute, and return what is printed."""
    from ntk_lab import kernel
    from ntk_lab.cli_progress import steady
    from ntk_lab.errors import InputError

    if args.output.exists() and not (args.resume or args.share):
        raise InputError(
            f"{args.output} exists already. Go on with it by --resume, or give another --output."
        )
    x = read(args.x)
    x2 = None if args.x2 is None else read(args.x2)
    net = architecture(args, tuple(x.shape[1:]))
    wanted: Any = names(args)
    with steady("tiles") as show:
        found = kernel.to_store(
            net, x, x2, args.output, which=wanted, memory=args.memory, share=args.share,
            progress=lambda done, total: show(done, total, ""),
        )  # fmt: skip
    lines = [f"{args.output}: complete"]
    lines += [f"  {name}: {m.shape}, {m.dtype}" for name, m in found.matrices.items()]
    return "\n".join(lines)
