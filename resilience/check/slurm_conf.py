"""What `mpsr check` looks at in slurm.conf: the lines that mpsr needs, and whether prolog and epilog lead to ours.

Reads the file as Slurm does, as far as that matters here: keys in any case, `#` comments, `\\` at a line's end, `include`.
A later line replaces an earlier one, but for Prolog and Epilog, which newer releases let repeat. Returns findings and
raises nothing: a file that cannot be read is a finding.
"""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from resilience.check.finding import Finding, fine, note, warning, wrong
from resilience.parse.nearest import nearest

_FLAGS = "Alloc Contain DeferBatch ForceRequeueOnFail NoHold RunInJob Serial X11".split()
IMPLY_ALLOC = {"alloc", "contain", "nohold", "x11", "runinjob"}
"""slurm.conf(5): each of these sets Alloc, or cannot be without it."""
_DEPTH = 10
"""Includes inside includes; Slurm has no limit but its stack."""
_MARK = "SPANK_MPSR"
"""In every hook of ours, and in whatever else hands a job's options to us."""


_SERVED = re.compile(r"^MPSR_HOOK=(\S+)", re.MULTILINE)
"""In hooks that ask the hook server: the program that does."""


@dataclass(slots=True)
class SlurmConf:
    """What was read. Keys in lower case."""

    values: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """The keys as the file spells them."""
    findings: list[Finding] = field(default_factory=list)

    def last(self, key: str) -> str:
        return self.values.get(key.lower(), [""])[-1]


def read(path: str) -> SlurmConf:
    conf = SlurmConf()
    _read(path, conf, 0)
    return conf


def _read(path: str, conf: SlurmConf, depth: int) -> None:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        conf.findings.append(wrong(path, f"cannot be read: {error.strerror or error}"))
        return
    for line in logical_lines(text):
        word, _, rest = line.partition(" ")
        if word.lower() == "include" and "=" not in word:
            target = rest.strip()
            if depth >= _DEPTH:
                conf.findings.append(wrong(path, f"includes too deeply: {target}"))
                continue
            _read(target if target.startswith("/") else os.path.join(os.path.dirname(path), target), conf, depth + 1)
            continue
        key, equals, value = line.partition("=")
        if equals and " " not in key.strip():
            conf.names[key.strip().lower()] = key.strip()
            conf.values.setdefault(key.strip().lower(), []).append(value.strip().strip('"'))


def logical_lines(text: str) -> Iterator[str]:
    """Lines without comments and blanks; a backslash at the end joins the next one."""
    held = ""
    for raw in text.splitlines():
        line = held + raw.split("#", 1)[0].rstrip()
        held = ""
        if line.endswith("\\"):
            held = line[:-1]
            continue
        if line.strip():
            yield line.strip()
    if held.strip():
        yield held.strip()


def check(path: str, conf: SlurmConf | None = None) -> tuple[list[Finding], str]:
    """The findings on one slurm.conf, and the path of its plugstack.conf."""
    conf = read(path) if conf is None else conf
    found = list(conf.findings)
    if found and not conf.values:
        return found, ""
    found += _replaced(path, conf)
    found += _gres(path, conf)
    found += _flags(path, conf)
    for key in ("Prolog", "Epilog"):
        found.append(_hook(path, conf, key))
    found.append(_mpi(path, conf))
    plugstack = conf.last("PlugStackConfig") or os.path.join(os.path.dirname(path), "plugstack.conf")
    return found, plugstack


def rooms(path: str, conf: SlurmConf, mib: int) -> list[Finding]:
    """Whether jobs see the rooms that their prolog mounts (docs/explanation/rooms.md): `mib` is prolog.room_mib."""
    kind = conf.last("JobContainerType")
    if "job_container/tmpfs" not in words(kind):
        return []
    if not mib:
        return [fine(f"{path}: JobContainerType", f"{kind}, and prolog.room_mib is 0")]
    text = f"{kind} gives a job mounts of its own, without what its prolog mounts: tasks under --mps may find no MPS server"
    return [
        warning(
            f"{path}: JobContainerType", text, "prolog.room_mib: 0 in mpsr.yaml; docs/explanation/rooms.md says more"
        )
    ]


def words(value: str) -> dict[str, str]:
    """The words of a list such as PrologFlags, by their lower case."""
    return {word.strip().lower(): word.strip() for word in value.split(",") if word.strip()}


def _replaced(path: str, conf: SlurmConf) -> list[Finding]:
    """What an earlier line said and the last one does not: a site's own, lost by an `include`."""
    found: list[Finding] = []
    for key, name in (("GresTypes", "gres_types"), ("PrologFlags", "prolog_flags")):
        lines = [words(value) for value in conf.values.get(key.lower(), [])]
        if lost := [word for line in lines for low, word in line.items() if low not in lines[-1]]:
            text = f"the last line replaces an earlier one, and has not: {','.join(dict.fromkeys(lost))}"
            hint = f"add it to slurm.{name} in site.yaml and `mpsr render` again, or to the last line"
            found.append(wrong(f"{path}: {key}", text, hint))
    for key in ("Prolog", "Epilog", "PlugStackConfig", "SelectType"):
        values = conf.values.get(key.lower(), [])
        if lost := [value for value in dict.fromkeys(values) if value != values[-1]]:
            text = f"the last line replaces an earlier one: {' '.join(lost)}"
            hint = "see that it is not missed: scripts belong in prolog.d and epilog.d, plugins in plugstack.conf.d"
            found.append(warning(f"{path}: {key}", text, hint))
    return found


def _gres(path: str, conf: SlurmConf) -> list[Finding]:
    found: list[Finding] = []
    types = conf.last("GresTypes").lower().split(",")
    if "gpu" not in types:
        hint = _instead("GresTypes", conf) or "GresTypes=gpu,mps,shard (slurm-mpsr.conf has it)"
        found.append(wrong(f"{path}: GresTypes", f"has no gpu: {conf.last('GresTypes') or 'not set'}", hint))
    elif not {"mps", "shard"} & set(types):
        text = "has neither mps nor shard: jobs cannot share a GPU, only a job's own tasks can"
        found.append(note(f"{path}: GresTypes", text))
    elif _kept(conf, "GresTypes"):
        found.append(fine(f"{path}: GresTypes", conf.last("GresTypes")))
    select = conf.last("SelectType")
    if select and select.lower() != "select/cons_tres":
        found.append(wrong(f"{path}: SelectType", f"cannot share a GPU: {select}", "SelectType=select/cons_tres"))
    return found


def _kept(conf: SlurmConf, key: str) -> bool:
    """No earlier line had a word that the last one has not."""
    return all(words(value).keys() <= words(conf.last(key)).keys() for value in conf.values.get(key.lower(), []))


def _flags(path: str, conf: SlurmConf) -> list[Finding]:
    given = [flag.strip() for flag in conf.last("PrologFlags").split(",") if flag.strip()]
    found: list[Finding] = []
    known = {flag.lower(): flag for flag in _FLAGS}
    for flag in given:
        if flag.lower() not in known:
            match = nearest(flag.lower(), known, 0.6)
            hint = f"did you mean {known[match]}?" if match else f"known: {', '.join(_FLAGS)}"
            found.append(wrong(f"{path}: PrologFlags", f"unknown flag: {flag}", hint))
    if {flag.lower() for flag in given} & IMPLY_ALLOC:
        if _kept(conf, "PrologFlags"):
            found.append(fine(f"{path}: PrologFlags", conf.last("PrologFlags")))
    else:
        hint = _instead("PrologFlags", conf) or "PrologFlags=Alloc"
        text = f"has no Alloc: {conf.last('PrologFlags') or 'not set'}: servers of other nodes would start too late"
        found.append(wrong(f"{path}: PrologFlags", text, hint))
    return found


def _mpi(path: str, conf: SlurmConf) -> Finding:
    """What every step is wired for. A program's libraries say whether it takes part (spank_plugin/launcher/ranks.h)."""
    kind = conf.last("MpiDefault")
    if kind.lower() in ("", "none"):
        return fine(f"{path}: MpiDefault", kind or "not set")
    text = f"{kind}: every step is wired for MPI; a task counts as a rank of it when its program has loaded MPI or PMI"
    return note(f"{path}: MpiDefault", text, "--mps-ranks=independent or together says otherwise")


def _hook(path: str, conf: SlurmConf, key: str) -> Finding:
    patterns = conf.values.get(key.lower(), [])
    subject, name = f"{path}: {key}", key.lower()
    if not patterns:
        hint = _instead(key, conf) or f"{key}={os.path.dirname(path)}/{name}.d/*"
        return wrong(subject, "is not set: no job could have MPS", hint)
    for pattern in patterns:
        for file in sorted(glob.glob(pattern)):
            if _MARK not in (text := _text(file)):
                continue
            if not os.access(file, os.X_OK):
                return wrong(subject, f"cannot be executed: {file}", f"chmod 755 {file}")
            program = _SERVED.search(text)
            if not program or not os.access(program[1], os.X_OK):
                what = f"{file}: starts Python for each job: {program[1] if program else 'no MPSR_HOOK'}"
                return note(subject, what, "the hook server makes it quick: install mpsr-hook, and `mpsr render` again")
            return fine(subject, file)
    return wrong(
        subject,
        f"does not lead to ours: {' '.join(patterns)}",
        f"install {name}.d/50-mpsr from `mpsr render`, and name it in {key}, or call it from your own script",
    )


def _text(file: str) -> str:
    """The beginning of a script; empty when it cannot be read."""
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 16)
    except OSError:
        return ""


def _instead(key: str, conf: SlurmConf) -> str:
    """A key that the file has and that looks like a slip of the pen for `key`."""
    others = [name for name in conf.names if name != key.lower()]
    match = nearest(key.lower(), others, 0.88)
    return f"{conf.names[match]} looks like {key} misspelt" if match else ""


def hint_unreadable(path: str) -> Finding:
    """For a node that has no slurm.conf, as in configless mode."""
    return warning(path, "is not there: nothing of Slurm was checked", "give --slurm-conf FILE")
