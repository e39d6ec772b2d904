"""The command `mpsr`: picks one command, imports only that one, turns what it raises into a line and an exit status.

Relies on one module a command, each with `add(parser)` for its arguments and `run(arguments) -> int` (parser.py); prolog
and epilog, which run inside Slurm's prolog, are plain functions and meet no argument parser. A ResilienceError is said in
its own words; a wrong configuration ends with the contract's `usage`, anything else with `failed`. Other exceptions
are bugs and end with a traceback.
"""

import io
import os
import sys
from collections.abc import Sequence

from resilience.cli.commands import COMMANDS
from resilience.contract import exit_code
from resilience.model.errors import ConfigError, ResilienceError
from resilience.parse.nearest import nearest


def usage() -> str:
    rows = "\n".join(f"  {name:<9} {text}" for name, text in COMMANDS.items())
    return f"usage: mpsr COMMAND [ARGUMENT...]\n\n{rows}\n\n`mpsr COMMAND --help` tells more."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except ResilienceError as error:
        print(error.lines(), file=sys.stderr)
        return exit_code("usage" if isinstance(error, ConfigError) else "failed")
    except BrokenPipeError:  # `mpsr log | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_code("ok")
    except KeyboardInterrupt:
        return 130


def _run(words: list[str]) -> int:
    name = words[0] if words else ""
    if name in ("-h", "--help", "help"):
        print(usage())
        return exit_code("ok")
    if name in ("version", "--version"):
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"mpsr {version('slurm-mps-resilience')}")
        except PackageNotFoundError:
            print("mpsr (run from a source tree)")
        return exit_code("ok")
    if name not in COMMANDS:
        match = nearest(name, COMMANDS, 0.6)
        hint = f"did you mean mpsr {match}?" if match else f"one of {', '.join(COMMANDS)}"
        raise ConfigError("command", "missing" if not name else "unknown", name, hint=hint)
    if name in ("prolog", "epilog"):
        from resilience.hooks.run_one import run

        return run(name)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a character that the terminal lacks is shown as \u044f, not raised
        sys.stdout.reconfigure(errors="backslashreplace")
    from resilience.cli.parser import of_command

    parser, run_command = of_command(name)
    return run_command(parser.parse_args(words[1:]))


if __name__ == "__main__":
    raise SystemExit(main())
