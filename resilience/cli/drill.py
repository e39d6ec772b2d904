"""`mpsr drill`: one real job on this cluster shows whether a program survives its neighbour's GPU fault here.

Runs with the caller's own rights and account. The job takes a whole GPU and fault domains of its own, so that no other job
shares its MPS servers; what a fault in one server does to others of the same GPU no longer matters then. Words after `--`
go to sbatch (a partition, a node, an account). Exit status `ok` only when everything held.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from resilience.adapters.slurm.requeue_sequence import ENDED
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.cli.log import open_recovery_log, places
from resilience.config import settings
from resilience.contract import exit_code
from resilience.drill import judge, plan
from resilience.model.errors import ConfigError, ResilienceError, SlurmError
from resilience.model.ids import JobId
from resilience.model.records import Record
from resilience.model.records.told import records_file
from resilience.ports import JobInfo
from resilience.report import journal_lines

_LOOK = 1.0
"""Seconds between two looks at the job."""
_SETTLE = 10.0
"""Seconds that files may take to show here after the job's end (shared file systems)."""
_ABOUT = """\
A job of yours will take one GPU ({gres}) for about a minute and make a GPU fault on it: {fault}.
It shares neither the GPU nor its MPS servers with another job, and makes no fault while another user's process is there."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run a job on this cluster that makes a GPU fault beside two programs, and say whether they survived. The job has a "
        "GPU and MPS servers of its own. Any user may run it; it asks before it makes the fault. The exit status is 0 only "
        "when everything held."
    )
    parser.add_argument(
        "--fault", choices=plan.FAULTS, default="illegal-address", help="the kind of fault (default: %(default)s)"
    )
    add_job(parser)


def add_job(parser: argparse.ArgumentParser) -> None:
    """What every job takes that makes a fault of its own."""
    parser.add_argument("--gres", default="gpu:1", help="what the job asks for: one whole GPU (default: %(default)s)")
    parser.add_argument(
        "--dir", default=".", help="for the job's files; a directory that the node sees, too (default: the current one)"
    )
    parser.add_argument("--python", default=sys.executable, help="Python of mpsr on the node (default: this one)")
    parser.add_argument(
        "--wait", type=int, default=600, metavar="S", help="give up after this many seconds (default: %(default)s)"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before the fault")
    parser.add_argument("--dry-run", action="store_true", help="show the job, submit nothing")
    parser.add_argument("--keep", action="store_true", help="keep the job's files")
    parser.add_argument("--json", metavar="FILE", help="write the result to this file, as JSON")
    parser.add_argument(
        "sbatch", nargs="*", metavar="-- SBATCH-OPTION", help="more options for sbatch, such as a partition"
    )


def run(arguments: argparse.Namespace) -> int:
    script = plan.script(arguments.python, arguments.fault)
    about = _ABOUT.format(gres=arguments.gres, fault=arguments.fault)
    return one_job(arguments, script, about, arguments.fault, plan.KEPT, judge.rows)


def one_job(
    arguments: argparse.Namespace,
    script: str,
    about: str,
    fault: str,
    first: str,
    judged: Callable[[judge.Left], list[judge.Judgement]],
) -> int:
    """Run a script's job to its end and say what held. Its step `first` must have begun for there to be something to judge."""
    if (name := arguments.gres.partition(":")[0]) != "gpu":
        raise ConfigError("--gres", "a drill takes a whole GPU, or its fault could hit others", name, hint="gpu:1")
    base = os.path.abspath(arguments.dir)
    if arguments.dry_run:
        print(f"# {shlex.join(plan.submit(base, arguments.gres, arguments.sbatch))}")
        print(script, end="")
        return exit_code("ok")
    if not arguments.yes:
        _ask(about)
    try:
        directory = tempfile.mkdtemp(prefix="mpsr-drill-", dir=base)
    except OSError as error:
        raise ResilienceError(
            base, "cannot be written", error.strerror or error, hint="give --dir DIRECTORY"
        ) from error
    try:
        left = _drill(arguments, script, directory, first)
        rows = judged(left)
    finally:
        if not arguments.keep:
            shutil.rmtree(directory, ignore_errors=True)
    held = all(row.held for row in rows)
    width = max(len(row.what) for row in rows)
    for row in rows:
        print(f"{row.what:<{width}}  {'held' if row.held else 'FAILED':<6}  {row.seen}")
    print(f"drill: {'all of it held' if held else 'something did not hold'} (job {left.job}, {fault})")
    if arguments.json:
        result = {"job": left.job, "fault": fault, "held": held, "rows": [asdict(row) for row in rows]}
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if arguments.keep:
        print(f"drill: the job's files are in {directory}")
    return exit_code("ok" if held else "failed")


def _ask(about: str) -> None:
    print(about)
    if not sys.stdin.isatty():
        raise ConfigError("drill", "asks first, and there is no terminal", "standard input", hint="give --yes")
    if input("Go on? (yes or no) ").strip().lower() != "yes":
        raise ResilienceError("drill", "cancelled", "no job submitted")


def _drill(arguments: argparse.Namespace, script: str, directory: str, first: str) -> judge.Left:
    chosen = settings.find(None).settings
    slurm = Scontrol(program=chosen.paths.scontrol, timeout=chosen.slurm.timeout, requeue_timeout=chosen.slurm.timeout)
    job = _submit(arguments, script, directory)
    print(f"drill: job {job}", flush=True)
    try:
        _until_ended(slurm, job, arguments.wait)
    except BaseException:
        subprocess.run(["scancel", str(job)], check=False, stdin=subprocess.DEVNULL)
        raise
    return _left(slurm.job(job), directory, first)


def _submit(arguments: argparse.Namespace, script: str, directory: str) -> JobId:
    command = plan.submit(directory, arguments.gres, arguments.sbatch)
    try:
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SlurmError("sbatch", "cannot be run", error.strerror or error, hint="run it on a submit host") from error
    number = done.stdout.strip().partition(";")[0]
    if done.returncode or not number.isdigit():
        said = (done.stderr or done.stdout).strip()
        hint = "is the plugin on this host? see mpsr check" if "--mps" in said else "options of sbatch go after --"
        raise SlurmError("sbatch", "refused the job", said[-400:], hint=hint)
    return JobId(int(number))


def _until_ended(slurm: Scontrol, job: JobId, seconds: int) -> None:
    """Tell each change of state. Raises ResilienceError when it takes too long."""
    until, told = time.monotonic() + seconds, ""
    while True:
        seen = slurm.snapshot(job)
        waits = f" ({seen.reason})" if seen.reason and seen.state == "PENDING" else ""
        if (now := f"{seen.state}{waits}") != told:
            print(f"drill: {now}", flush=True)
            told = now
        if seen.state in ENDED:
            return
        if time.monotonic() > until:
            raise ResilienceError(
                f"job {job}", f"is not done after {seconds} s", now, hint="it is cancelled; see --wait"
            )
        time.sleep(_LOOK)


def _records(file: str) -> tuple[Record, ...]:
    try:
        with open_recovery_log(file) as stream:
            return tuple(entry.record for entry in journal_lines.collect(stream).entries)
    except FileNotFoundError:
        return ()


def _left(last: JobInfo, directory: str, first: str) -> judge.Left:
    job = last.job
    until = time.monotonic() + _SETTLE
    while not os.path.exists(f"{directory}/{first}.status") and time.monotonic() < until:
        time.sleep(_LOOK)
    files = {file.name: file.read_text(errors="replace") for file in Path(directory).iterdir() if file.is_file()}
    if not files:
        hint = "give --dir a directory that the node sees"
        raise ResilienceError(f"job {job}", "left no files here", directory, hint=hint)
    if "job.log" in files and f"{first}.step" not in files:
        raise ResilienceError(f"job {job}", "did not begin", files["job.log"].strip()[-600:] or last.state)
    records = tuple(record for file in places(last) for record in _records(records_file(file)))
    spilled = tuple(str(entry) for entry in Path(directory).glob(".mpsr*"))
    return judge.Left(
        job=job,
        state=last.state,
        restarts=last.restarts,
        files=files,
        records=records,
        spilled=spilled,
    )
