"""Fuzz targets: texts that other programs write: MPS daemons, the kernel log, Slurm, /proc, NVML.

A target takes any bytes and returns. Errors that the parser documents are its answer; whatever else it raises is a find.
"""

import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pynvml

from resilience.adapters.gpu import nvml
from resilience.adapters.linux.procfs import ProcfsTree
from resilience.adapters.slurm import account_text, sacct, squeue
from resilience.adapters.slurm.slurm_program import ProgramAnswer
from resilience.model.errors import ConfigError, GpuError, SlurmError, WireError
from resilience.model.ids import GpuUuid, JobId
from resilience.parse import guard, hostlist, job_environment, job_name, mps_control, mpslog, recovery_log, xid

JOB = JobId(4711)
SHOWN = ("State", "RestartCnt", "WorkDir", "StdOut", "Name", "UserName", "ArrayJobID", "ArrayTaskID")


def text(data: bytes) -> str:
    """As the adapters decode what they read."""
    return data.decode("utf-8", "replace")


def mps_log(data: bytes) -> None:
    whole = text(data)
    for line in whole.splitlines():
        mpslog.parse_line(line)
    control, _, server = whole.partition("\0")
    mps_control.state_in_logs(control, server, 7)
    mps_control.ready(control)
    mps_control.deaths(control)
    mps_control.quit_status(control)
    mps_control.quits(control)
    assert len(mps_control.reason(server)) <= 200


def mps_answer(data: bytes) -> None:
    out, _, err = text(data).partition("\0")
    _, lines = mps_control.answer(out, err)
    assert all(pid > 0 for pid in mps_control.pids(lines))
    mps_control.status(lines)
    mps_control.complaint(lines)
    mps_control.partition_table(lines)
    mps_control.partitions_made(lines, "GPU-1c88eebc")
    mps_control.terminated(lines)
    mps_control.start_hint(1, out)
    mps_control.unknown_option(out)


def kernel_log(data: bytes) -> None:
    for line in text(data).split("\n"):
        found = xid.parse_line(line)
        if isinstance(found, xid.XidLine):
            assert 0 <= found.xid < 100_000
    xid.parse_bus(text(data))


def guard_records(data: bytes) -> None:
    try:
        for record in guard.parse_records(data):
            record.words()
            assert record.starttime >= 0
    except WireError:
        pass


def slurm_fields(data: bytes) -> None:
    """What squeue prints: as it comes, and cut into records of the length that was asked for."""
    for out in (data, _records(data)):
        for ask in (_fields, _members, _identity):
            try:
                ask(ProgramAnswer(status=0, out=out, err=""))
            except SlurmError:
                continue


def _records(data: bytes) -> bytes:
    widths = [24] * 3 + [8300] * 2 + [2048, 300] + [24] * 2
    values = (data.split(b"|") + [b""] * len(widths))[1 : len(widths)]
    cells = [str(JOB).encode(), *values]
    return b"".join(cell[:width].ljust(width) for cell, width in zip(cells, widths, strict=True)) + b"\n"


def _fields(answer: ProgramAnswer) -> None:
    shown = squeue.fields(lambda *_: answer, str(JOB), JOB, SHOWN)
    path = squeue.output_path(shown, JOB)
    recovery_log.places(path, shown["WorkDir"], JOB)


def _members(answer: ProgramAnswer) -> None:
    squeue.members(lambda *_: answer, JOB)


def _identity(answer: ProgramAnswer) -> None:
    squeue.identity(lambda *_: answer, JOB)


def slurm_words(data: bytes) -> None:
    """Names of jobs, hosts and GPUs, rows of sacct, comments."""
    whole = text(data)
    for parse in (job_name.parse, lambda word: hostlist.expand(word, "fuzz")):
        try:
            parse(whole)
        except ConfigError:
            continue
    hostlist.numbers(whole)
    job_environment.held_gpus(whole)
    job_environment.job_gpus(*(whole.split("\0", 1) * 2)[:2])
    for line in whole.splitlines():
        sacct._row(line)
    there, _, ours = whole.partition("\0")
    assert "\n" not in account_text.one_line(ours)
    account_text.beside(there, ours)


def environment(data: bytes) -> None:
    """slurmd's to a prolog, and a user's process's."""
    pairs = (word.partition("=") for word in text(data).split("\0"))
    given = {name: value for name, _, value in pairs}
    job_environment.process_job(given)
    with suppress(ConfigError):
        job_environment.job_environment({"SLURMD_NODENAME": "n0", "SLURM_JOB_ID": "1", "SLURM_JOB_UID": "0", **given})


_PROC = Path(tempfile.mkdtemp(prefix="mpsr-fuzz-"))


def proc_files(data: bytes) -> None:
    """/proc/PID of a user's process: command name and environment are the user's."""
    home = _PROC / "7"
    home.mkdir(exist_ok=True)
    parts = (data.split(b"\xff") + [b""] * 4)[:4]
    parts[2] = parts[2].replace(b"\0", b"")  # which no path has
    # the kernel's fields after a name of the user's
    stat = b"7 (" + parts[0][:15] + b") S 1 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 5555 1 1 1\n"
    files = {"stat": stat, "environ": parts[1], "cgroup": parts[2], "status": b"Name:\t" + _one(parts[3])}
    for name, content in files.items():
        (home / name).write_bytes(content)
    tree = ProcfsTree(str(_PROC), str(_PROC))
    assert tree.starttime(7) == 5555
    assert tree.ancestors(7) == (1,)
    assert tree.uid(7) == 1001
    tree.stopped(7)
    tree.job(7)


def _one(name: bytes) -> bytes:
    """As the kernel writes a command's name into status: one line."""
    return name[:15].replace(b"\\", b"\\\\").replace(b"\n", b"\\n") + b"\nUid:\t1001\t1001\t1001\t1001\n"


def nvml_answers(data: bytes) -> None:
    """The driver's texts and numbers through pynvml, whose functions return bytes, str and None."""
    words = (data.split(b"\0") + [b""] * 4)[:4]
    number = int.from_bytes(data[:8], "little")
    process = SimpleNamespace(pid=number & 0xFFFFFFFF, usedGpuMemory=None if number & 1 else number)
    answers: dict[str, Any] = {
        "nvmlSystemGetDriverVersion": words[0],
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": 0,
        "nvmlDeviceGetHandleByUUID": 0,
        "nvmlDeviceGetMinorNumber": number & 0xFFFFFFFF,
        "nvmlDeviceGetUUID": words[1],
        "nvmlDeviceGetName": words[2],
        "nvmlDeviceGetPciInfo": SimpleNamespace(busId=words[3]),
        "nvmlDeviceGetMigMode": [number & 1, 0],
        "nvmlDeviceGetCudaComputeCapability": [number & 15, 0],
        "nvmlDeviceGetMPSComputeRunningProcesses": [process],
        "nvmlDeviceGetComputeRunningProcesses": [process],
    }
    fake = SimpleNamespace(**vars(pynvml))
    for name, value in answers.items():
        setattr(fake, name, lambda *_, value=value: value)
    with mock.patch.object(nvml, "_nvml", return_value=fake):
        try:
            for gpu in nvml.NvmlGpus().all():
                xid.parse_bus(gpu.bus_id)
            list(nvml.NvmlGpus().mps_processes(GpuUuid("x")))
            nvml.NvmlGpus().mps_memory(GpuUuid("x"))
        except GpuError:
            pass
