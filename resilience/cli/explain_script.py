"""What of a batch script will be recovered: a sentence for each of its lines that asks for something or starts something.

The options are those that the plugin would find, with the site's rules for the script's partition; what a line starts is
read from its words (parse/job_script.py), so what a variable, a function or another script starts is not known here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from resilience.model.errors import ConfigError
from resilience.model.options import JobOptions, Ranks, Rung
from resilience.model.settings import Options
from resilience.parse import job_script, rules
from resilience.parse import options as option_parser
from resilience.parse.job_script import Command

_QUIET = frozenset(
    "cd pwd export unset set shopt source . echo printf test [ [[ true false : exit return shift local declare readonly read "
    "for case esac in fi done function select trap wait jobs kill ulimit umask alias eval module ml spack conda date "
    "hostname sleep mkdir rmdir rm cp mv ln ls cat head tail tee touch chmod chown grep sed awk cut sort uniq wc tr find "
    "xargs tar gzip rsync scp df du ps id whoami which type dirname basename realpath readlink mktemp diff "
    "sbatch scancel squeue scontrol sacct sinfo sstat git curl wget nvidia-smi }".split()
)
"""Words after which no program of the user's computes on a GPU."""
_MPIEXEC = frozenset("mpirun mpiexec mpiexec.hydra orterun prun mpirun.openmpi mpiexec.openmpi mpiexec.mpich".split())
_CONTROL = "nvidia-cuda-mps-control"


def lines(text: str, site: Options, partition: str = "") -> Iterator[str]:
    """The sentences, each with its line's number. Raises ConfigError for what the plugin would refuse, naming the line."""
    where = partition or job_script.setting(text, "--partition", "-p").partition(",")[0]
    options = _options(text, rules.of_partition(site, where))
    if no := next((number for number, words in job_script.sbatch_lines(text) if "--no-requeue" in words), 0):
        yield f"line {no}: --no-requeue: the last rung is closed"
        options = replace(options, recover=tuple(rung for rung in options.recover if rung is not Rung.REQUEUE))
    for asked in job_script.options(text):
        yield f"line {asked.line}: --mps{'' if asked.key == 'mps' else f'-{asked.key}'}: asked for"
    if not options.mps:
        yield "mps=off: nothing of this script is recovered; it runs as if mpsr were not installed (#SBATCH --mps asks for it)"
        return
    yield f"mps=on{f' in partition {where}' if where else ''}: {_ladder(options)}"
    shell = _is_shell(text)
    if not shell:
        yield f"line 1: {_plain(options)}: the script is itself the program"
    for command in job_script.commands(text) if shell else ():
        if said := _said(command, options):
            yield f"line {command.line}: {_short(command)}: {said}"
    if not job_script.supervised(text) and site.batch_hint == "on":
        yield "the script's output begins with a hint, since no line has srun or mpsr run"


def _options(text: str, site: Options) -> JobOptions:
    """What holds for the script, as the plugin finds it."""
    asked: dict[str, str] = {}
    for one in job_script.options(text):
        value = "on" if one.value is None and one.key in _flags() else one.value or ""
        name = "--mps" if one.key == "mps" else f"--mps-{one.key}"
        try:
            asked[one.key] = option_parser.check_value(one.key, value)
        except ConfigError as error:
            raise ConfigError(f"line {one.line}: {name}", error.wrong, error.observed, hint=error.hint) from error
    if asked and "mps" not in asked:
        asked["mps"] = "on"
    return rules.in_force(asked, site)


def _flags() -> frozenset[str]:
    from resilience.contract import contract

    return frozenset(str(spec["key"]) for spec in contract()["option"].values() if spec["kind"] == "flag")


def _ladder(options: JobOptions) -> str:
    rungs = [rung.value for rung in options.recover if rung is not Rung.STANDBY or options.standby]
    return f"a task that a neighbour's fault hits is recovered by {', '.join(rungs) or 'nothing'}, in this order"


def _is_shell(text: str) -> bool:
    first = text.partition("\n")[0]
    program = first.removeprefix("#!").split() if first.startswith("#!") else ["sh"]
    names = {word.rpartition("/")[2] for word in program}
    return bool(names & {"sh", "bash", "dash", "zsh", "ksh"})


def _short(command: Command) -> str:
    shown = " ".join(command.words)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _plain(options: JobOptions) -> str:
    last = (
        "when a fault hits it, its job is requeued, unless tasks of it go on"
        if Rung.REQUEUE in options.recover
        else "when a fault hits it, its job is told, and not requeued"
    )
    return f"under MPS without a supervisor: not recovered, unless it uses resilience.session(); {last} (put srun or mpsr run before it)"


def _said(command: Command, options: JobOptions) -> str:
    """What becomes of what a command starts; empty when it starts nothing that computes."""
    program, words = command.program, command.words
    if any(_CONTROL in word for word in (*words, *command.before)):
        return "starts or ends MPS itself: what then uses its daemon is outside the job's servers, and is told of (take it out)"
    if outside := _outside(command):
        return outside
    if program == "srun":
        return _srun(words, options)
    if program == "mpsr-launch" or (program == "mpsr" and words[1:2] == ("run",)):
        return f"has a supervisor: {_rungs(options, rank=False)}"
    if program in _MPIEXEC:
        return _mpiexec(words, options)
    if program in ("ssh", "pdsh", "clush"):
        return "what it starts has nothing of the job's environment: outside MPS (use srun)"
    if program in ("apptainer", "singularity", "podman", "docker", "enroot"):
        return f"{_plain(options)}; the container must show /run/mpsr"
    return "" if program in _QUIET or program.startswith(("#", "$", "-")) else _plain(options)


def _outside(command: Command) -> str:
    """A change of the environment after which what follows is not where it should be."""
    words, before = command.words, command.before
    changed = (*before, *(words[1:] if words[0] in ("export", "unset") else ()))
    if "env" in before and ("-i" in before or "-" in before):
        return "env -i takes CUDA_MPS_PIPE_DIRECTORY away: outside MPS, and told of"
    if any(word.startswith("CUDA_MPS_PIPE_DIRECTORY") for word in changed):
        return "changes CUDA_MPS_PIPE_DIRECTORY: what then computes is outside the job's servers, and is told of (leave it as it is)"
    if words[0] == "export" and any(word.startswith("CUDA_VISIBLE_DEVICES=") for word in words):
        return (
            "changes CUDA_VISIBLE_DEVICES: a task of srun gets its GPUs from Slurm all the same, plain commands do not"
        )
    return ""


def _step_options(words: tuple[str, ...]) -> Mapping[str, str]:
    """Long options of an srun, up to its program; short ones by their letter."""
    found: dict[str, str] = {}
    for word in words[1:]:
        if not word.startswith("-"):
            continue
        name, _, value = word.partition("=")
        found[name] = value
    return found


def _srun(words: tuple[str, ...], options: JobOptions) -> str:
    given = _step_options(words)
    if given.get("--mps") == "off":
        return "outside MPS: srun --mps=off"
    if "--multi-prog" in given:
        return "under MPS without a supervisor: not recovered (put mpsr-launch before each program in the file)"
    if "--container" in given:
        return (
            "refused: Slurm's own --container cannot be had with MPS (use --container-image, or apptainer in the step)"
        )
    kind = given.get("--mpi", "")
    return f"each task has a supervisor: {_rungs(options, rank=kind not in ('', 'none'))}"


def _rungs(options: JobOptions, *, rank: bool) -> str:
    rungs = [rung for rung in options.recover if rung is not Rung.STANDBY or options.standby]
    together = options.ranks is Ranks.TOGETHER or (rank and options.ranks is Ranks.AUTO)
    if together:
        way = "requeue" if Rung.REQUEUE in rungs else "nothing: requeue is closed"
        return f"ranks of an MPI program come back with their whole job only, by {way}"
    named = {
        Rung.STANDBY: "standby (with a session)",
        Rung.RESTORE: "restore (with a session)",
        Rung.RELAUNCH: "relaunch",
        Rung.REQUEUE: "requeue",
    }
    return (
        f"recovered by {', '.join(named[rung] for rung in rungs)}"
        if rungs
        else "not recovered: --mps-recover names nothing"
    )


def _mpiexec(words: tuple[str, ...], options: JobOptions) -> str:
    if any(words[place : place + 2] == ("mpsr", "run") for place in range(len(words))) or "mpsr-launch" in words:
        return f"each rank has a supervisor and its node's GPU of its place: {_rungs(options, rank=True)}"
    return (
        "its ranks are under MPS without supervisors of their own, on the GPUs that their node's script or daemon sees; "
        f"{_rungs(options, rank=True)} (put mpsr run before the program, and each rank has its own)"
    )
