"""Which network the command line is about: a few options, or a file."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Scale of the weights that keeps signals alive with b_std = 0.1 (the edge of chaos; for relu and
# gelu the scale that preserves large signals).
_ACTIVATIONS = {"relu": 2**0.5, "erf": 1.06, "gelu": 2**0.5, "tanh": 1.2}


# fmt: off
def add_network(add: Callable[..., Any], depth: int = 2) -> None:
    """Options of a fully connected network."""
    add("--activation", choices=sorted(_ACTIVATIONS), default="relu",
        help="between layers (default: %(default)s)")
    add("--depth", type=int, default=depth, metavar="N",
        help="hidden layers (default: %(default)s)")
    scales = ", ".join(f"{scale:.4g} for {name}" for name, scale in _ACTIVATIONS.items())
    add("--w-std", type=float, metavar="X",
        help=f"weight scale of hidden layers (default: {scales})")
    add("--b-std", type=float, default=0.1, metavar="X",
        help="bias scale of hidden layers (default: %(default)s)")


def add_architecture(group: Any) -> None:
    """Options of any network: a file, or a fully connected one."""
    group.add_argument("--network", type=Path, metavar="FILE",
        help="JSON of an architecture, as net.to_json() writes it (default: fully connected, by "
        "the options below)")
    add_network(group.add_argument)
# fmt: on


def fully_connected(args: argparse.Namespace, outputs: int, width: int) -> Any:
    """The network that the options describe."""
    from ntk_lab import nn
    from ntk_lab.errors import InputError

    if args.depth < 1:
        raise InputError(f"--depth {args.depth} must be at least 1: widths are of hidden layers.")
    w_std = _ACTIVATIONS[args.activation] if args.w_std is None else args.w_std
    activation = getattr(nn, args.activation.capitalize())()
    hidden = [nn.Dense(width, w_std=w_std, b_std=args.b_std), activation]
    return nn.Sequential(nn.Flatten(), *hidden * args.depth, nn.Dense(outputs))


def architecture(args: argparse.Namespace, shape: tuple[int, ...]) -> Any:
    """The network for inputs of that shape, from a file or by options."""
    from ntk_lab import nn
    from ntk_lab.errors import InputError

    if args.network is None:
        net = fully_connected(args, 1, 1)
        # Vectors have nothing to flatten, and compiled loops take networks of vectors.
        return net if len(shape) > 1 else nn.Sequential(*net.layers[1:])
    try:
        return nn.from_json(args.network.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"--network {args.network} cannot be read: {error.strerror}. Write the file by "
            "net.to_json(), or describe a network by --activation and --depth."
        ) from error
