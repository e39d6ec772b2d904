"""`mpsr explain INCIDENT|JOB`: the story in plain words; `mpsr explain --options "…"`: what these options would do;
`mpsr explain --job-script FILE`: what of a batch script will be recovered (explain_script.py).

The story comes from a node's journal alone, or from those of many nodes. The options are checked as
the plugin checks them, with the site's defaults, locks and prohibitions, and each consequence is one line.
"""

import argparse
import re
import sys

from resilience.cli import explain_script, named_job, over_nodes
from resilience.cli.log import journal_path, note_skipped, words
from resilience.config import mpsr_yaml, settings
from resilience.contract import exit_code
from resilience.model.errors import ConfigError, ResilienceError
from resilience.model.ids import JobId
from resilience.model.options import Domain, Endings, JobOptions, OnCulprit, Ranks, Require, Rung, Servers, Unattached
from resilience.model.records.words import printable
from resilience.model.settings import Options, Settings
from resilience.parse import job_name, rules
from resilience.parse import options as option_parser
from resilience.report import journal_lines, story

_SERVERS = {
    Servers.AUTO: "each GPU has MPS servers of its own; a job with several whole GPUs on a node, whose tasks may have more than "
    "one, has one pair over all of them, shared with nobody",
    Servers.GPU: "each GPU has MPS servers of its own, and a task uses one GPU",
    Servers.JOB: "one pair of MPS servers over all GPUs that the job has on a node, shared with nobody, without SM partitions; "
    "the GPUs must be whole (gres/gpu)",
}
_SCRIPT = 1 << 20
"""Characters of a batch script that are read."""
_JOB = re.compile(r"\d+(?:[_+.]|\Z)", re.ASCII)


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Tell what happened in an incident or to a job, from the journal, which only admins may read. With --options, tell "
        "what a set of options would do here; with --job-script, what of a batch script will be recovered. Any user may ask "
        "for these."
    )
    parser.add_argument(
        "what", nargs="?", metavar="INCIDENT|JOB", help="an incident's id, or a job: 4711, 4711_3, 4711+1"
    )
    parser.add_argument("--options", metavar="TEXT", help='key=value pairs joined by ";", such as "mps=on;domain=job"')
    parser.add_argument(
        "--job-script", metavar="FILE", help="say of a batch script, line by line, what will be recovered and what not"
    )
    parser.add_argument("--partition", help="with --options or --job-script: Slurm's partition, whose rules hold")
    named_job.add(parser, "ask the nodes of this job, and tell its story where nothing else is named")
    over_nodes.add(parser)
    parser.add_argument("--node", help="Slurm's name of the node (default: this one)")
    parser.add_argument("--journal", metavar="FILE", help="another journal file")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    what = str(arguments.what or (arguments.job.text if arguments.job else "")) or None
    if sum(one is not None for one in (what, arguments.options, arguments.job_script)) != 1:
        raise ConfigError("explain", "give an incident, a job, --options or --job-script")
    chosen = settings.find(arguments.config).settings
    if arguments.job_script is not None:
        for line in explain_script.lines(_script(arguments.job_script), chosen.options, arguments.partition or ""):
            print(printable(line))
        return exit_code("ok")
    if arguments.options is not None:
        for line in consequences(
            in_force(arguments.options, rules.of_partition(chosen.options, arguments.partition or ""))
        ):
            print(line)
        return exit_code("ok")
    assert what is not None
    job = _JOB.match(what)
    wanted = named_job.numbers(job_name.parse(what), chosen) if job else ()
    jobs = named_job.numbers(arguments.job, chosen) if arguments.job else wanted
    if where := over_nodes.target(arguments, chosen, jobs, admins=True):
        return _of_many(where, chosen, what, wanted)
    file = arguments.journal or journal_path(chosen, arguments.node)
    read = journal_lines.read(file)
    note_skipped(read, file)
    if not _told(read, what, wanted):
        kind = "job" if job else "incident"
        hint = (
            "it may be of another node: --nodes LIST"
            if job
            else "incidents of this node: mpsr log; others: --nodes LIST"
        )
        raise ResilienceError(f"{kind} {what}", "is not in the journal", file, hint=hint)
    return exit_code("ok")


def _of_many(where: over_nodes.Target, chosen: Settings, what: str, wanted: tuple[JobId, ...]) -> int:
    """A story for each node that has one: their clocks are not the same."""
    command = words(job=what, around=True) if wanted else words(incident=what, around=True)
    found = over_nodes.ask_records(where, chosen, lambda node: [*command, "--node", node])
    told = [_told(read, what, wanted, f" on {node}") for node, read in found.answers.items()]
    if any(told):
        return found.tell(exit_code("ok"))
    print(f"mpsr: {what}: is not in the journals of the nodes that answered", file=sys.stderr)
    return found.tell(exit_code("failed"))


def _told(read: journal_lines.Read, what: str, wanted: tuple[JobId, ...], where: str = "") -> bool:
    """Print the story; False when these records have none."""
    entries = story.of_jobs(read.entries, wanted) if wanted else story.of_incident(read.entries, what)
    if entries:
        kind = "Job" if wanted else "Incident"
        print(f"{kind} {what}{where}, {journal_lines.when(entries[0].wall)[:10]} (times are UTC)")
    for line in story.tell(entries):
        print(printable(line))
    return bool(entries)


def _script(path: str) -> str:
    """Raises ResilienceError when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_SCRIPT)
    except OSError as error:
        raise ResilienceError(path, "cannot be read", error.strerror or error) from error


def in_force(text: str, site: Options) -> JobOptions:
    """What would hold for a user who asks for `text`. Raises ConfigError for what the plugin would refuse."""
    asked: dict[str, str] = {}
    for pair in filter(None, (word.strip() for word in text.split(";"))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError("options", "is not key=value", mpsr_yaml.shown(pair), hint='such as "mps=on;domain=job"')
        if key in asked:
            raise ConfigError("options", "key given twice", mpsr_yaml.shown(key))
        asked[key] = value
    return rules.in_force({key: option_parser.check_value(key, value) for key, value in asked.items()}, site)


def consequences(options: JobOptions) -> list[str]:
    """What a set of options does, one line each."""
    if not options.mps:
        return ["mps=off: nothing. The job runs as if mpsr were not installed."]
    domains = {
        Domain.JOB: "the tasks of this job share MPS servers with nobody else: only they are hit by one another's faults",
        Domain.USER: "this job shares its MPS servers with your other jobs on the same GPU: a fault in one hits all of them",
        Domain.SHARED: "this job shares its MPS servers with everybody's jobs on the same GPU, and so their faults",
    }
    lines = [
        "mps=on: each task of each step runs under an MPS server, and a supervisor watches it.",
        f"servers={options.servers.value}: {_SERVERS[options.servers]}.",
        f"domain={options.domain.value}: {domains[options.domain]}.",
    ]
    if options.threads is not None:
        lines.append(
            f"threads={options.threads}: each task gets at most {options.threads} percent of the GPU's threads; "
            "with SM partitions that is the share of the whole job."
        )
    if options.memory is not None:
        lines.append(
            f"memory={options.memory}: a task that asks for more than {options.memory} MiB of device memory fails."
        )
    if options.state is not None:
        lines.append(f"state={options.state}: a program may keep at most {options.state} MiB across a fault, per task.")
    lines += _recovery(options)
    elsewhere = {
        Unattached.WARN: "is told of in the job's output and log",
        Unattached.FAIL: "is ended, and told of in the job's output and log",
    }
    lines.append(
        f"unattached={options.unattached.value}: a process that computes outside the job's MPS servers, or with more than its "
        f"share, {elsewhere[options.unattached]}."
    )
    if options.endings is Endings.SAFE:
        lines.append(
            "endings=safe: a process that a signal is about to end has its work taken off the GPU first (at most 2 s), "
            "so that its end cannot hurt the neighbours on its server."
        )
    else:
        lines.append(
            "endings=plain: signals end processes as without mpsr; programs with a session are safe all the same."
        )
    requires = {
        Require.MPS: "a node that cannot give MPS refuses the job's steps; without a standby or isolation it runs all the same",
        Require.STANDBY: "a node that cannot have a spare server refuses the job's steps",
        Require.ISOLATION: "a node that cannot hold faults back from neighbours refuses the job's steps",
    }
    lines.append(f"require={options.require.value}: {requires[options.require]}.")
    return lines


def _recovery(options: JobOptions) -> list[str]:
    tries = {
        Rung.STANDBY: "a standby on a spare server takes over (programs with a session)",
        Rung.RESTORE: "the program starts again and goes on from its last commit (programs with a session)",
        Rung.RELAUNCH: "the program starts again from scratch, in the same allocation (not a rank of MPI)",
        Rung.REQUEUE: "Slurm takes the job back; it goes on from the last commit on disk if it kept state",
    }
    rungs = [rung for rung in options.recover if rung is not Rung.STANDBY or options.standby]
    lines = [f"recover={','.join(options.recover)}: when a neighbour's fault hits a task, in this order:"]
    lines += [f"  {number}. {tries[rung]}" for number, rung in enumerate(rungs, 1)]
    if not rungs:
        lines.append("  nothing: the task fails with the reason.")
    if not options.standby:
        lines.append("standby=off: no spare server and no second process; the first rung is left out.")
    elif Rung.STANDBY in rungs:
        lines.append(
            "standby=on: a second process of each task waits on a spare server; it needs memory of host and GPU."
        )
    lines.append(f"retries={options.retries}: after that many recoveries of one task only requeue is left.")
    culprits = {
        OnCulprit.FAIL: "a task that caused a fault itself ends, and the job with it as its script decides; no requeue",
        OnCulprit.QUARANTINE: "a task that caused a fault itself goes on alone, on a server of its own",
        OnCulprit.REQUEUE: "a job whose task caused a fault itself is requeued",
    }
    ranks = {
        Ranks.AUTO: "a task whose program is MPI's (libmpi, libpmi or libpmix loaded, or PMI used) comes back with its whole job "
        "only, by a requeue; every other task comes back alone",
        Ranks.INDEPENDENT: "every task comes back alone, whatever its program loads: right only where no rank waits for another",
        Ranks.TOGETHER: "a task comes back with its whole job only, by a requeue, as a rank of an MPI program does",
    }
    lines.append(f"on-culprit={options.on_culprit.value}: {culprits[options.on_culprit]}.")
    return [*lines, f"ranks={options.ranks.value}: {ranks[options.ranks]}."]
