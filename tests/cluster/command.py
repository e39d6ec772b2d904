"""The command line of the sandbox: up, run, down. See sandbox.py."""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.cluster.plan import Plan
from tests.cluster.sandbox import ROOT, Sandbox, SandboxError, enter

RECORD = ROOT / "build" / "sandbox.json"
"""The sandbox that `up` holds: the number of its process and of init."""


def recorded() -> dict[str, Any]:
    """The running sandbox of `up`, {} when there is none."""
    with contextlib.suppress(OSError, ValueError):
        values: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
        if b"tests.cluster" in Path(f"/proc/{values['pid']}/cmdline").read_bytes():
            return values
    return {}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.sandbox", description="a private Slurm cluster")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "run"):
        sub = commands.add_parser(name)
        sub.add_argument("--nodes", type=int, default=2)
        sub.add_argument("--gpus", type=int, default=1, help="GPUs of each node")
        sub.add_argument("--plain", action="store_true", help="Slurm alone, without mpsr")
        if name == "run":
            sub.add_argument("-u", "--user", default="alice", choices=("alice", "bob", "root"))
            sub.add_argument("argv", nargs="+", metavar="COMMAND")
    commands.add_parser("down")
    options = parser.parse_args(argv)
    try:
        if options.command == "down":
            return down()
        if options.command == "run" and (there := recorded()):
            command = enter(Plan.loads(there["plan"]), there["init"], options.argv, user=options.user)
            return os.spawnvp(os.P_WAIT, command[0], command)
        began = time.monotonic()
        with Sandbox(nodes=options.nodes, gpus=options.gpus, plugin=not options.plain) as sandbox:
            print(f"sandbox: nodes {','.join(sandbox.nodes)}, GPU {sandbox.gpu}, "
                  f"ready after {time.monotonic() - began:.2f} s", file=sys.stderr)  # fmt: skip
            if options.command == "run":
                command = sandbox.command(options.argv, user=options.user)
                return os.spawnvp(os.P_WAIT, command[0], command)
            return up(sandbox)
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 1


def up(sandbox: Sandbox) -> int:
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(
        json.dumps({"pid": os.getpid(), "init": sandbox.init, "plan": sandbox.plan.dumps()}), encoding="utf-8"
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("sandbox: python -m tests.cluster.sandbox run -- COMMAND enters it; Ctrl-C ends it", file=sys.stderr)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    finally:
        RECORD.unlink(missing_ok=True)
    return 0


def down() -> int:
    there = recorded()
    if not there:
        print("sandbox: none is up", file=sys.stderr)
        return 0
    os.kill(there["pid"], signal.SIGTERM)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{there['init']}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return 0
