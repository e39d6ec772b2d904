"""The fuzz targets in Python, by name; those in C are in build.py.

Every parser of bytes that another program or a user writes has one; docs/how-to/fuzz.md lists them.
"""

from collections.abc import Callable
from pathlib import Path

from tests.fuzz import messages, texts

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FOUND = HERE.parent / "data/fuzz"
"""Inputs that broke a parser once; each is replayed by test_replay.py."""

PYTHON: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        texts.mps_log,
        texts.mps_answer,
        texts.kernel_log,
        texts.guard_records,
        texts.slurm_fields,
        texts.slurm_words,
        texts.environment,
        texts.proc_files,
        texts.nvml_answers,
        messages.agent_packets,
        messages.leases,
        messages.option_strings,
        messages.journal_files,
        messages.keeper_packets,
        messages.state_tables,
        messages.commit_records,
        messages.spill_files,
        messages.notes,
        messages.hook_requests,
    )
}


def inputs(name: str) -> list[Path]:
    """Seeds and former finds of a target."""
    return sorted(path for folder in (CORPUS, FOUND) for path in (folder / name).glob("*"))
