"""`mpsr guard test`: do the guard module's hooks still see the driver's cancels, on this node, with this driver?

One job of the caller's, as the drill's (cli/drill.py): a whole GPU, fault domains of its own, no fault while anybody else is
on that GPU. It makes one MMU fault and looks at what the hooks counted. After a driver update, and before the module is
enabled: it tells with the module off, too.
"""

import argparse

from resilience.cli import drill
from resilience.drill import guard_test

_ABOUT = """\
A job of yours will take one GPU ({gres}) for some seconds and make a memory fault on it.
It shares neither the GPU nor its MPS servers with another job, and makes no fault while another user's process is there."""


def add(parser: argparse.ArgumentParser) -> None:
    words = parser.add_subparsers(dest="word", required=True, metavar="test")
    about = "make a fault of our own and see whether the module meets it"
    drill.add_job(words.add_parser("test", help=about, description=about, allow_abbrev=False))


def run(arguments: argparse.Namespace) -> int:
    script = guard_test.script(arguments.python)
    about = _ABOUT.format(gres=arguments.gres)
    return drill.one_job(arguments, script, about, guard_test.FAULT, guard_test.BEFORE, guard_test.rows)
