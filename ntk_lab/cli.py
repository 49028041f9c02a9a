"""The command line, ``ntk-lab``: one file for each command.

jax, matplotlib and the rest are imported when a command runs, not for ``--help``.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version

from ntk_lab import cli_compare, cli_kernel, cli_plan, cli_regress

INTERRUPTED = 130
_BAD_INPUT, _UNSOLVED = 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments without the name of the program; default those of the process.

    Returns
    -------
    int
        Exit code: 0, 2 for input that cannot be used, 3 for a regression that was not solved, 130
        after Ctrl-C.
    """
    own_process = argv is None
    argv = sys.argv[1:] if argv is None else list(argv)
    args = _parser().parse_args(argv)
    from ntk_lab.cli_progress import interruptible, say
    from ntk_lab.errors import ConvergenceError, InputError, NumericalError

    goodbye = f"\nInterrupted. {args.goodbye(args)}"
    try:
        with interruptible(goodbye, INTERRUPTED) if own_process else nullcontext():
            text = args.run(args, argv)
    except KeyboardInterrupt:
        say(goodbye)
        return INTERRUPTED
    except (InputError, NumericalError, ImportError) as error:
        say(textwrap.fill(f"ntk-lab: {error}", 100, break_on_hyphens=False))
        return _UNSOLVED if isinstance(error, ConvergenceError) else _BAD_INPUT
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ntk-lab",
        description="Does kernel regression with the neural tangent kernel predict a network's "
        "training, how far, until when, and if not, why? And its kernels and regressions, of any "
        "size.",
        epilog="Exit codes: 0; 2 for input that cannot be used; 3 for a regression that was not "
        "solved; 130 after Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"ntk-lab {version('ntk_lab')}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    for command in (cli_compare, cli_plan, cli_kernel, cli_regress):
        command.add_parser(commands)
    return parser
