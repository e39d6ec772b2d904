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
    test = words.add_parser(
        "test",
        allow_abbrev=False,
        help="make a fault of our own and see whether the module meets it",
        description=(
            "Run a job on this cluster that makes a memory fault, and say whether the guard module's hooks met the driver's "
            "cancels. Works with the module off, too. The job has a GPU and MPS servers of its own, and makes no fault while "
            "another user's process is on that GPU, or where the module is not loaded. Any user may run it; it asks before it "
            "makes the fault. The exit status is 0 only when everything held."
        ),
    )
    drill.add_job(test)


def run(arguments: argparse.Namespace) -> int:
    script = guard_test.script(arguments.python)
    about = _ABOUT.format(gres=arguments.gres)
    return drill.one_job(arguments, script, about, guard_test.FAULT, guard_test.BEFORE, guard_test.rows)
