"""A batch script's own words: our options in its #SBATCH lines, the commands in its lines. Pure.

`options` and `supervised` are twins of spank_plugin/plugin/script.c, held to the same cases (tests/data/scripts.json).
`commands` reads a shell's lines as far as words can tell: what a variable, a function or another script starts is not seen.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from resilience.contract import contract

_OPTIONS = {f"--{name}": spec for name, spec in contract()["option"].items()}
_SBATCH = re.compile(r"#SBATCH[ \t]+(.*)")
_SUPERVISED = re.compile(r"(?<![A-Za-z0-9_.-])(?:srun|mpsr-launch|mpsr)(?![A-Za-z0-9_./-])", re.ASCII)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=", re.ASCII)
_HEREDOC = re.compile(r"<<-?\s*([\"']?)(\w+)\1")
_ENDS = frozenset({";", "&", "&&", "||", "|", "|&", "(", ")", "((", "))", ";;", "{", "}", "!"})
_OPENERS = frozenset("if then else elif while until do time".split())
_WRAPPERS = frozenset("exec command nohup nice stdbuf numactl taskset timeout env builtin".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptOption:
    """One option of ours in an #SBATCH line."""

    line: int
    key: str
    value: str | None
    """None: a bare flag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program that a line starts."""

    line: int
    words: tuple[str, ...]
    """The program and its arguments, without assignments before it and without wrappers such as exec and timeout."""
    before: tuple[str, ...] = ()
    """Those assignments, and the wrappers with their arguments."""

    @property
    def program(self) -> str:
        return self.words[0].rpartition("/")[2]


def sbatch_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The words of each #SBATCH line that sbatch reads, with the line's number: up to the first command, and of the
    job's first component. A `#` ends the words."""
    for number, whole in enumerate(text.split("\n"), 1):
        line = whole.split("\r", 1)[0]
        if (bare := line.lstrip(" \t")) and not bare.startswith("#"):
            return
        if not (found := _SBATCH.match(line)):
            continue
        if found[1].startswith(("hetjob", "packjob")):
            return
        words = [word for word in re.split(r"[ \t]+", found[1]) if word]
        comment = next((place for place, word in enumerate(words) if word.startswith("#")), len(words))
        yield number, words[:comment]


def options(text: str) -> tuple[ScriptOption, ...]:
    """Our options of a script, in order, unchecked."""
    found: list[ScriptOption] = []
    for number, words in sbatch_lines(text):
        rest = iter(words)
        for word in rest:
            name, equals, value = word.partition("=")
            if (spec := _OPTIONS.get(name)) is None:
                continue
            given = value if equals else None if spec["kind"] == "flag" else next(rest, None)
            found.append(ScriptOption(line=number, key=str(spec["key"]), value=given))
    return tuple(found)


def setting(text: str, long: str, short: str) -> str:
    """The last value of one of sbatch's own options; empty when the script does not say."""
    found = ""
    for _, words in sbatch_lines(text):
        for place, word in enumerate(words):
            following = words[place + 1] if place + 1 < len(words) else ""
            if word in (long, short):
                found = following
            elif word.startswith(f"{long}="):
                found = word.partition("=")[2]
            elif word.startswith(short) and not word.startswith("--"):
                found = word[len(short) :]
    return found


def supervised(text: str) -> bool:
    """Whether any line that is no comment has srun, mpsr or mpsr-launch: the plugin then gives no hint."""
    return any(not line.lstrip(" \t").startswith("#") and _SUPERVISED.search(line) for line in text.split("\n"))


def commands(text: str) -> tuple[Command, ...]:
    """What the lines of a shell script start, in order."""
    return tuple(found for number, line in _logical_lines(text) for found in _of_line(number, line))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their continuations, by the first one's number; without here-documents."""
    lines = enumerate(text.split("\n"), 1)
    for number, line in lines:
        whole = line
        while whole.endswith("\\"):
            whole = whole[:-1] + " " + next(lines, (0, ""))[1]
        yield number, whole
        for heredoc in _HEREDOC.finditer(whole):
            for _, inside in lines:
                if inside.strip() == heredoc[2]:
                    break


def _of_line(number: int, line: str) -> Iterator[Command]:
    reader = shlex.shlex(line, posix=True, punctuation_chars="();&|{}!")
    reader.whitespace_split = True
    try:
        words = list(reader)
    except ValueError:  # a quotation over several lines
        words = line.split()
    part: list[str] = []
    for word in [*words, ";"]:
        if word not in _ENDS:
            part.append(word)
            continue
        if (found := _command(number, part)) is not None:
            yield found
        part = []


def _command(number: int, words: list[str]) -> Command | None:
    before: list[str] = []
    rest = list(words)
    while rest:
        word = rest[0]
        if word in _OPENERS or _ASSIGNMENT.match(word):
            before.append(rest.pop(0))
        elif word.rpartition("/")[2] in _WRAPPERS:
            before.append(rest.pop(0))
            while rest and (rest[0].startswith("-") or _ASSIGNMENT.match(rest[0]) or rest[0][:1].isdigit()):
                flag = rest.pop(0)
                before.append(flag)
                if flag in ("-u", "-k", "-n", "-s", "-c") and rest:
                    before.append(rest.pop(0))
        else:
            return Command(line=number, words=tuple(rest), before=tuple(before))
    return None
