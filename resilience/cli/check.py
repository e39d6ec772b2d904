"""`mpsr check`: what is wrong with the configuration of this node, or of many, and the way out of each.

Looks at mpsr.yaml, a site file when given, slurm.conf, plugstack.conf, at the things that they name, at what holds the
programs that root starts as users, at what the guard module found, and at what containers are shown. Exit status `ok` when
nothing is wrong; `usage` when something is. A missing GPU library or control program is a warning, because a submit host has
neither. Changes nothing.
"""

import argparse
import ctypes
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict

from resilience.adapters.gpu import guard as guard_module
from resilience.adapters.gpu.nvml import NvmlGpus
from resilience.adapters.linux.trust import check_trusted
from resilience.adapters.mps.mps_control import SERVER_PROGRAM
from resilience.adapters.mps.mps_talk import search_path
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.adapters.slurm.slurm_program import beside
from resilience.check import containers, controller, enclosures, gpus, guard, plugstack, slurm_conf
from resilience.check.finding import Finding, Findings, Severity, fine, merged, note, raised, warning, wrong
from resilience.cli import health, named_job, over_nodes
from resilience.cli.render import load_site
from resilience.config import settings
from resilience.contract import env, exit_code, path
from resilience.model.errors import ConfigError, GpuError, TrustError
from resilience.model.settings import Settings
from resilience.ports import Gpu

_SLURM_CONF = "/etc/slurm/slurm.conf"
_NO_LIBRARY = (12,)
"""NVML_ERROR_LIBRARY_NOT_FOUND: the library, or pynvml."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Say what is wrong with the configuration of this node and of its containers, whether the guard module covers its "
        "driver and GPUs, and the way out of each finding. "
        "Changes nothing."
    )
    parser.add_argument("--config", metavar="FILE", help=f"mpsr.yaml (default: ${env('config')} or {path('config')})")
    parser.add_argument("--site", metavar="FILE", help="also check a site file")
    parser.add_argument("--slurm-conf", metavar="FILE", help=f"slurm.conf (default: $SLURM_CONF or {_SLURM_CONF})")
    parser.add_argument("--plugstack", metavar="FILE", help="plugstack.conf (default: what slurm.conf names)")
    named_job.add(parser, "check the nodes of this job")
    over_nodes.add(parser)
    parser.add_argument(
        "--health",
        action="store_true",
        help="one line on the state of this node, with Nagios' exit statuses: 0 ok, 1 warning, 2 critical, 3 unknown",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("-q", "--quiet", action="store_true", help="say only what is wrong")


def run(arguments: argparse.Namespace) -> int:
    if arguments.health:
        if arguments.nodes or arguments.job or arguments.json:
            raise ConfigError("--health", "is of this node, and one line", hint="leave out --nodes, --job and --json")
        return health.run(arguments.config, _health)
    asked = settings.find(arguments.config).settings if arguments.nodes or arguments.job else Settings()
    jobs = named_job.numbers(arguments.job, asked) if arguments.job else ()
    if where := over_nodes.target(arguments, asked, jobs, admins=False, here_too=False):
        for option in ("site", "slurm_conf", "plugstack"):
            if given := getattr(arguments, option):
                raise ConfigError(f"--{option.replace('_', '-')}", "is of this host", given, hint="leave out --nodes")
        answered = over_nodes.ask(where, asked, lambda node: ["check", "--json"], Findings)
        found = merged(answered.answers)
        _print(found, arguments, missing=answered.missing)
        return answered.tell(_status(found))
    found = Findings(findings=tuple(_look(arguments)))
    _print(found, arguments)
    return _status(found)


def _status(found: Findings) -> int:
    return exit_code("usage" if found.count(Severity.ERROR) else "ok")


def _print(found: Findings, arguments: argparse.Namespace, missing: Mapping[str, str] | None = None) -> None:
    if arguments.json:
        print(json.dumps(asdict(found) | ({} if missing is None else {"no_answer": missing})))
        return
    for finding in found.findings:
        if not arguments.quiet or finding.level in (Severity.WARNING, Severity.ERROR):
            print(finding.lines())
    print(f"{found.count(Severity.ERROR)} wrong, {found.count(Severity.WARNING)} to look at")


def _health(chosen: Settings) -> list[Finding]:
    found = _node(chosen)
    return found + gpus.check(_gpus(found))


def _look(arguments: argparse.Namespace) -> list[Finding]:
    found: list[Finding] = []
    chosen = _config(arguments.config, found)
    if arguments.site:
        found += _site(arguments.site)
    stack_file = _slurm(arguments.slurm_conf, chosen, found)
    if chosen is not None:
        if stack := arguments.plugstack or stack_file:
            found += plugstack.check(stack, chosen)
        found += _node(chosen)
        present = _gpus(found)
        found += gpus.check(present)
        found += enclosures.check(chosen)
        found += guard.check(guard_module.level(), guard_module.found(), present, chosen.paths.kmsg)
        found += containers.check(chosen)
    return found


def _config(named: str | None, found: list[Finding]) -> Settings | None:
    try:
        chosen = settings.find(named)
    except ConfigError as error:
        found.append(raised(error))
        return None
    if chosen.source:
        found.append(fine(chosen.source, "every key and value is good"))
    else:
        found.append(note(path("config"), "is not there: every setting has its default"))
    if chosen.settings.recovery.mode == "observe":
        found.append(note("recovery.mode", "observe: verdicts are only written down, nothing is done"))
    if chosen.settings.mps.sm_partitions == "auto":
        text = "auto: needs driver 610 or later; a job without a partition says why in its lease (mpsr status)"
        found.append(note("mps.sm_partitions", text))
    return chosen.settings


def _site(name: str) -> list[Finding]:
    try:
        load_site(name)
    except ConfigError as error:
        return [raised(error)]
    return [fine(name, "every key and value is good")]


def _slurm(named: str | None, settings: Settings | None, found: list[Finding]) -> str:
    """The path of plugstack.conf, empty when unknown."""
    chosen = named or os.environ.get("SLURM_CONF", "") or _SLURM_CONF
    if not named and not os.path.exists(chosen):
        found.append(slurm_conf.hint_unreadable(chosen))
        return ""
    conf = slurm_conf.read(chosen)
    findings, plugstack = slurm_conf.check(chosen, conf)
    found += findings
    if settings is not None:
        found += slurm_conf.rooms(chosen, conf, settings.prolog.room_mib)
    if settings is not None and conf.values:
        timeout = settings.slurm.timeout
        found += controller.check(
            conf, Scontrol(program=settings.paths.scontrol, timeout=timeout, requeue_timeout=timeout)
        )
    return plugstack


def _node(chosen: Settings) -> list[Finding]:
    paths = chosen.paths
    found = [
        _program("paths.launcher", paths.launcher, wrong, "install the package, or correct install.launcher"),
        _program("paths.python", paths.python, wrong, "install Python 3.11 or later, or correct install.python"),
        _program("paths.scontrol", paths.scontrol, warning, "without it no job is requeued and no node drained"),
        _program(
            "squeue",
            beside(paths.scontrol, "squeue"),
            warning,
            "it lies beside scontrol, and without it no job is known",
        ),
        _program(
            "paths.mps_control",
            paths.mps_control,
            warning,
            "comes with NVIDIA's driver; a GPU node needs it, a submit host does not",
        ),
        _server_program(paths.mps_control),
        _library("libcuda.so.1"),
        _library("libnvidia-ml.so.1"),
        _pynvml(),
    ]
    if os.path.exists(paths.kmsg):
        if os.geteuid() == 0 and not os.access(paths.kmsg, os.R_OK):
            found.append(warning("paths.kmsg", f"cannot be read: {paths.kmsg}", "Xid lines will not be seen"))
    else:
        found.append(warning("paths.kmsg", f"is not there: {paths.kmsg}", "Xid lines will not be seen"))
    if paths.spill and not os.path.isdir(paths.spill):
        found.append(
            wrong("paths.spill", f"is no directory: {paths.spill}", "make it, mode 1777, on a shared file system")
        )
    if paths.metrics:
        found.append(_written_to("paths.metrics", paths.metrics, "node_exporter as --collector.textfile.directory"))
    if paths.job_mapping:
        given = "dcgm-exporter as --hpc-job-mapping-dir"
        found.append(_written_to("paths.job_mapping", paths.job_mapping, given))
    for name in ("run", "log", "state"):
        found += _directory(f"paths.{name}", getattr(paths, name))
    return found


def _gpus(found: list[Finding]) -> tuple[Gpu, ...]:
    """None where the driver does not answer. A library that is missing is said elsewhere, any other reason here."""
    try:
        return NvmlGpus().all()
    except GpuError as error:
        if error.code not in _NO_LIBRARY:
            found.append(warning("NVML", str(error), error.hint or "no GPU is known here until it answers"))
        return ()


def _directory(subject: str, directory: str) -> list[Finding]:
    """Root keeps leases and journals there: nobody else may be able to replace them."""
    if not os.path.isdir(directory):
        return [note(subject, f"is not there yet: {directory}: made at the first use")]
    try:
        check_trusted(directory)
    except TrustError as error:
        return [raised(error)]
    return [fine(subject, directory)]


def _written_to(subject: str, directory: str, given: str) -> Finding:
    """Here root's agent or prolog writes: it refuses what this refuses. `given`: to whom the directory is named."""
    try:
        check_trusted(directory)
    except OSError as error:
        hint = f"install -d -m 755 {directory}, and give it to {given}"
        return wrong(subject, f"{(error.strerror or str(error)).lower()}: {error.filename}", hint)
    except TrustError as error:
        return raised(error)
    if not os.path.isdir(directory):
        return wrong(subject, f"is no directory: {directory}", "name the directory, not the file in it")
    return fine(subject, directory)


def _program(subject: str, name: str, say: Callable[[str, str, str], Finding], hint: str) -> Finding:
    where = shutil.which(name)
    if where:
        return fine(subject, where)
    text = "cannot be executed" if os.path.exists(name) else "is not there"
    return say(subject, f"{text}: {name}", hint)


def _server_program(control: str) -> Finding:
    """The daemon looks for the server on its PATH, which is made here as it is for a prolog without any."""
    where = shutil.which(SERVER_PROGRAM, path=search_path({}, control))
    if where:
        return fine(SERVER_PROGRAM, where)
    return warning(
        SERVER_PROGRAM,
        f"is not beside {control}, nor where packages put it",
        "a GPU node needs it: no server starts without",
    )


def _library(name: str) -> Finding:
    try:
        ctypes.CDLL(name)
    except OSError:
        return warning(
            name, "cannot be loaded", "comes with NVIDIA's driver; a GPU node needs it, a submit host does not"
        )
    return fine(name, "can be loaded")


def _pynvml() -> Finding:
    if importlib.util.find_spec("pynvml"):
        return fine("pynvml", "is installed")
    hint = "pip's nvidia-ml-py, Debian's python3-pynvml (contrib); a GPU node needs it, a submit host does not"
    return warning("pynvml", f"is not installed for {sys.executable}", hint)
