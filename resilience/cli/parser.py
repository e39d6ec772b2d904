"""The argument parsers of the commands: argparse with our wording and our exit status.

`of_command` makes one and imports one command. `whole` makes the parser of `mpsr` with all of them: manual page, reference
and completions are made from it (docs/generate_commands.py), and `mpsr` itself never pays for it.
"""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn

from resilience.cli.commands import COMMANDS, WITHOUT_ARGUMENTS
from resilience.contract import exit_code

Run = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"mpsr: {self.prog.removeprefix('mpsr ')}: {message}\n  try: {self.prog} --help", file=sys.stderr)
        raise SystemExit(exit_code("usage"))


def of_command(name: str) -> tuple[Parser, Run]:
    """The parser of one command, and what runs it with the arguments that the parser found."""
    parser = Parser(prog=f"mpsr {name}", allow_abbrev=False)
    return parser, _add(parser, name)


def whole() -> Parser:
    """The parser of `mpsr` with every command. Imports them all."""
    parser = Parser(prog="mpsr", allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="print the version of mpsr")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        if name not in WITHOUT_ARGUMENTS:
            _add(command, name)
    return parser


def _add(parser: Parser, name: str) -> Run:
    module = import_module(f"resilience.cli.{name}")
    module.add(parser)
    return module.run  # type: ignore[no-any-return]  # each command's module has one
