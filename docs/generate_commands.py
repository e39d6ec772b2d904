"""Writes what follows from the parser of `mpsr`: mpsr(1), reference/cli.md, and completions for bash, zsh and fish.

`make docs` writes them; tests/unit/test_render_reference.py fails when one is stale. argparse-manpage and shtab make
the page and the completions; both are pinned in pyproject.toml, since another version of them writes other files.
"""

import argparse
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

from resilience.cli.parser import whole
from resilience.contract import exit_code

_ABOUT = "fault-resilient NVIDIA MPS for Slurm: look at a node, read what happened, check and render its configuration"
_DESCRIPTION = (
    "A job asks for resilient MPS with `--mps` and the options beside it that `sbatch --help` lists. `mpsr` shows what "
    "became of it, and what the node has. `mpsr --help` lists the commands, `mpsr COMMAND --help` the arguments of one."
)
_WHICH = (
    "Settings come from the file that `--config` names, else `MPSR_CONFIG`, else `/etc/slurm/mpsr.yaml`. Without that "
    "file every setting has its default.",
    "The node is the one that `--node` names, else `SLURMD_NODENAME`, else the only one that has files here, else the "
    "host's short name.",
)
_EXIT = {
    str(
        exit_code("ok")
    ): "All is well. `prolog` and `epilog` end so whatever happens, unless `prolog.on_failure` is `drain`.",
    str(exit_code("failed")): "What was asked for did not work; `status`: something is not as it should be.",
    str(exit_code("usage")): "A bad argument or configuration; `check`: something is wrong.",
    str(exit_code("no_answer")): "With `--nodes` or `--job`: some nodes did not answer; standard error names them.",
    str(exit_code("refused")): "A supervised task cannot have what `--mps-require` asks for.",
    str(exit_code("recovery_failed")): "A supervised task: every rung failed, and the job could not be requeued.",
    f"{exit_code('not_executable')}, {exit_code('not_found')}": "A supervised task: its program cannot be executed, or is not there.",
    "130": "Interrupted with Ctrl-C.",
}
_TASKS = "Otherwise a supervised task ends as its program does."
_ENVIRONMENT = {
    "MPSR_CONFIG": "Another mpsr.yaml.",
    "SLURMD_NODENAME": "Slurm's name of this node.",
    "SLURM_CONF": "Another slurm.conf, for `check`.",
}
_FILES = {
    "/etc/slurm/mpsr.yaml": "Settings.",
    "/var/log/mpsr/NODE/journal.jsonl": "The journal.",
    "/var/lib/mpsr/NODE/spills": "Which jobs have spilled state.",
    "/run/mpsr/NODE": "Leases, sockets, pipe directories of MPS.",
}
_MESSAGES = (
    "An error is a line `mpsr: SUBJECT: WHAT IS WRONG: VALUE` on standard error, followed by a hint where there is a "
    "way out."
)
_ALSO = ("mpsr (7)", "mpsr.yaml (5)", "mpsr-agent (8)", "sbatch (1)", "nvidia-cuda-mps-control (1)")

_WIDE = functools.partial(argparse.HelpFormatter, width=10_000)
"""No line is broken by the width of somebody's terminal."""


def _parser() -> tuple[argparse.ArgumentParser, list[argparse.ArgumentParser]]:
    """The parser of `mpsr`, and those of its commands, each with a description."""
    parser = whole()
    parser.formatter_class = _WIDE
    return parser, list(_commands(parser))


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """What can be run: a command that has commands of its own is a word before theirs."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for listed in action._choices_actions:
            command = action.choices[listed.dest]
            text = str(listed.help)
            command.description = command.description or f"{text[0].upper()}{text[1:]}."
            command.formatter_class = _WIDE
            command.color = False  # Python 3.14's usage has colours
            own = list(_commands(command))
            yield from own or [command]


# ---------------------------------------------------------------- the manual page
def _roff(text: str) -> str:
    """A text as roff takes it; what is between backticks is bold."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"`([^`]*)`", r"\\fB\1\\fR", escaped)


def _terms(rows: dict[str, str], font: str) -> str:
    return "\n".join(f".TP\n.{font} {_roff(term)}\n{_roff(text)}" for term, text in rows.items())


def man() -> str:
    parser, _ = _parser()
    page = Manpage(parser, format="single-commands-section")
    page.date, page.manual, page.description = "", "User Commands", _ABOUT
    page.synopsis = ["mpsr", r"\fICOMMAND\fR [\fIARGUMENT\fR...]"]
    page.add_section("description", "=", "\n.PP\n".join(map(_roff, (_DESCRIPTION, *_WHICH, _MESSAGES))))
    page.add_section("exit status", "=", f"{_terms(_EXIT, 'B')}\n.PP\n{_TASKS}")
    page.add_section("environment", "=", _terms(_ENVIRONMENT, "B"))
    page.add_section("files", "=", _terms(_FILES, "I"))
    page.add_section("see also", "=", ",\n".join(f".BR {_roff(name)}" for name in _ALSO))
    made = ".\\\" Made by docs/generate_commands.py from the commands' parsers; edit these, not this.\n"
    return made + _tidy(str(page))


def _tidy(page: str) -> str:
    """argparse-manpage's text of a command as a manual page has it: a synopsis, a paragraph, the arguments."""
    page = re.sub(r"^[^\n]+\n\n(?=usage: )", "", page, flags=re.M)  # the list's line: the description says it
    page = re.sub(r"^\.SS .+\nusage: .+ \.\.\.\n\n.+\n+", "", page, flags=re.M)  # a word before commands
    page = re.sub(r"^usage: (mpsr [a-z ]+) \[\\-h\](.*)\n\n", r".B \1\n\2\n.PP\n", page, flags=re.M)
    page = re.sub(r"^(?:arguments:|options:|\.RS 7|\.RE|)\n", "", page, flags=re.M)
    page = re.sub(r"^ ", "", page, flags=re.M)
    return page.replace(".SH\nCOMMANDS", ".SH COMMANDS")


# ---------------------------------------------------------------- the reference page
def _lines(text: str) -> str:
    """A sentence a line."""
    return re.sub(r"(?<=[.]) (?=[A-Z`])", "\n", text)


def _usage(command: argparse.ArgumentParser) -> str:
    return command.format_usage().removeprefix("usage: ").replace(" [-h]", "", 1).strip()


def _arguments(command: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """How each argument is written, and what it means."""
    for action in command._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        choices = f"{{{','.join(action.choices)}}}" if action.choices else ""
        value = "" if action.nargs == 0 else str(action.metavar or choices or action.dest.upper())
        written = f"{', '.join(action.option_strings)} {value}".strip()
        yield written.replace("|", "\\|"), str(action.help) % {"default": action.default}


def cli() -> str:
    _, commands = _parser()
    made = "<!-- Made by docs/generate_commands.py from the commands' parsers; edit these, not this. -->"
    text = f"{made}\n# The command mpsr\n\n{_lines(_DESCRIPTION)}\n\n{_lines(_WHICH[0])}\n\n{_lines(_WHICH[1])}\n"
    for command in commands:
        text += f"\n## {command.prog}\n\n    {_usage(command)}\n\n{_lines(str(command.description))}\n"
        if rows := "".join(f"| `{written}` | {meaning} |\n" for written, meaning in _arguments(command)):
            text += f"\n| argument | meaning |\n|---|---|\n{rows}"
    rows = "".join(f"| {status} | {meaning} |\n" for status, meaning in _EXIT.items())
    text += f"\n## Exit status\n\n| status | meaning |\n|---|---|\n{rows}\n{_TASKS}\n"
    return f"{text}\n## Messages\n\n{_MESSAGES}\n"


# ---------------------------------------------------------------- completions
_PLACES = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "DIRECTORY": shtab.DIRECTORY, "PYTHON": shtab.FILE}
"""What stands for a value → what a shell offers for it."""


def _completion(shell: str) -> str:
    parser, commands = _parser()
    for command in commands:
        command.description = None  # a shell shows the line of the list
        for action in command._actions:
            if place := _PLACES.get(str(action.metavar or action.dest.upper())):
                action.complete = place  # type: ignore[attr-defined]  # shtab looks for it there
    return shtab.complete(parser, shell)


PAGES = {
    "man/mpsr.1": man,
    "reference/cli.md": cli,
    "../completions/mpsr": functools.partial(_completion, "bash"),
    "../completions/_mpsr": functools.partial(_completion, "zsh"),
    "../completions/mpsr.fish": functools.partial(_completion, "fish"),
}

if __name__ == "__main__":
    for name, write in PAGES.items():
        file = Path(__file__).parent / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(write(), encoding="utf-8")
