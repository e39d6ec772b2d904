"""A virtual machine that boots straight into the tests: one initramfs with a shell, the modules and the test program.

qemu emulates (no KVM: the tests must run inside containers and other virtual machines), with a thread for each of two
processors, so that what the module does on one meets what it does on the other. The emulator must bear code that is
patched on one processor while another runs it: QEMU 7.2 can stall there without any module of ours
(kernel_module/tests/vm/control.c shows it), so one before 10 gets a single thread. `-cx16` because QEMU 7.2's
cmpxchg16b upsets 6.12 kernels. Debian's kernels poison freed memory and check the edges of slab objects (slub_debug), so a
use after free that a production kernel would forgive shows here; a kernel of ours (debug.config) looks at every access,
lock and sleep, and shows afterwards, on mistakes made on purpose, that it looked.
"""

import gzip
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.guard import modules
from tests.guard.kernels import BUILD

_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
$b mount -t tracefs tracing /sys/kernel/tracing
$b dmesg -c >/dev/null
/guard_test
echo "kernel log:"
$b dmesg -c
{mistakes}
$b poweroff -f
"""
_MISTAKES = """echo "mistakes on purpose:"
$b insmod /mistakes.ko
$b dmesg
"""
ARGUMENTS = "console=ttyS0 panic=-1 quiet log_buf_len=4M rcupdate.rcu_expedited=1"
ON_DEBIAN = "slub_debug=FZPU"
ON_OURS = "stress=15"
"""Where every access is looked at, the stress lasts longer, for less happens in a second."""
OWN_QEMU = BUILD / "qemu"
"""Unpacked by setup.sh where the installed one is too old."""
LIMIT = 300.0
"""Seconds for each machine; it takes about one minute and a half on two idle cores."""
LIMIT_ON_OURS = 900.0
"""A kernel that looks at every access takes three times as long."""

TROUBLE = re.compile(
    r"BUG|WARNING:|Oops|general protection|Call Trace|refcount_t|rcu_.*stall|soft lockup|hung task"
    r"|KASAN|UBSAN|ODEBUG|INFO: |lockdep is turned off|suspicious RCU|list_(add|del) corruption"
)
_RESULT = re.compile(r"(?P<word>ok|FAILED) (?P<name>\w+) (?P<ms>\d+)$")
_COUNT = re.compile(r"guard: (?P<passed>\d+) passed, (?P<failed>\d+) failed$")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmOutcome:
    ok: bool
    ms: int
    complaints: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Transcript:
    text: str
    outcomes: dict[str, VmOutcome] = field(default_factory=dict)
    records: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    """Records of /dev/mps_guard: the fields as the C program read them, and the bytes."""
    counted: int = -1
    """How many tests the program says it ran; -1: it did not come to its end."""
    stalls: list[dict[str, int]] = field(default_factory=list)
    """What neighbours waited in storms, as kernel_module/tests/vm/storms.c measures it."""
    log: list[str] = field(default_factory=list)
    mistakes: str = ""
    """What the kernel said when mistakes were made on purpose."""

    @property
    def trouble(self) -> list[str]:
        return [line for line in self.text.splitlines() if TROUBLE.search(line)]


def _entry(name: str, mode: int, data: bytes) -> bytes:
    """One member of a newc archive (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % value for value in fields)
    head = header + encoded
    head += b"\0" * (-len(head) % 4)
    return head + data + b"\0" * (-len(data) % 4)


def initramfs(files: Mapping[str, Path | str]) -> bytes:
    """A compressed archive of executable files; a string is the content itself."""
    archive = b"".join(_entry(name, 0o040755, b"") for name in ("bin",))
    for name, source in files.items():
        data = source.encode() if isinstance(source, str) else source.read_bytes()
        archive += _entry(name, 0o100755, data)
    archive += _entry("TRAILER!!!", 0, b"")
    return gzip.compress(archive, compresslevel=1, mtime=0)


def init(debug: bool) -> str:
    """The first program of the machine."""
    return _INIT.format(mistakes=_MISTAKES if debug else "")


def archive(built: Mapping[str, modules.Built], work: Path, *, debug: bool) -> Path:
    """The machine's only file system, below `work`: its first program, the tests and the modules."""
    files: dict[str, Path | str] = {"init": init(debug), "bin/busybox": busybox()}
    files["guard_test"] = modules.build_program(work)
    for name, build in built.items():
        files[f"{name}.ko"] = work / f"{name}.ko"
        modules.run("strip", "--strip-debug", "-o", work / f"{name}.ko", build.module)
    made = work / "initramfs"
    made.write_bytes(initramfs(files))
    return made


def emulator() -> tuple[tuple[str, ...], int]:
    """The command without the machine, and its major version."""
    own = OWN_QEMU / "usr" / "bin" / "qemu-system-x86_64"
    command: tuple[str, ...] = ("qemu-system-x86_64",)
    if own.exists():
        share = OWN_QEMU / "usr" / "share"
        command = (str(own), "-L", str(share / "qemu"), "-L", str(share / "seabios"))
    told = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\d+)\.", told)
    return command, int(match[1]) if match else 0


def machine(version: int) -> tuple[str, ...]:
    threads = "multi" if version >= 10 else "single"
    return (
        *("-M", "q35", "-accel", f"tcg,thread={threads}", "-cpu", "max,-cx16", "-smp", "2", "-m", "1024"),
        *("-nographic", "-no-reboot", "-nic", "none"),
    )


def boot(kernel: Path, archive: Path, *, debug: bool, more: str = "", limit: float = 0.0) -> Transcript:
    """Run the tests to their end, or to the limit in seconds (0: the usual); `more` goes to the kernel, and so to the program."""
    command, version = emulator()
    arguments = f"{ARGUMENTS} {ON_OURS if debug else ON_DEBIAN} {more}"
    files = ("-kernel", str(kernel), "-initrd", str(archive))
    try:
        done = subprocess.run(
            [*command, *machine(version), *files, "-append", arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit or (LIMIT_ON_OURS if debug else LIMIT),
            check=False,
        )
        output = done.stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
    return read(output.decode("utf-8", "replace"))


def read(text: str) -> Transcript:
    """What the machine's console said."""
    # The firmware's last words and the first result share a line.
    text, _, mistakes = text.replace("\r", "").partition("mistakes on purpose:\n")
    transcript = Transcript(text=text, mistakes=mistakes)
    complaints: list[str] = []
    fields: dict[str, str] = {}
    in_log = False
    for line in text.splitlines():
        if in_log:
            transcript.log.append(line)
        elif line == "kernel log:":
            in_log = True
        elif match := _COUNT.search(line):
            transcript.counted = int(match["passed"]) + int(match["failed"])
        elif match := _RESULT.search(line):
            transcript.outcomes[match["name"]] = VmOutcome(
                ok=match["word"] == "ok", ms=int(match["ms"]), complaints=tuple(complaints)
            )
            complaints = []
        elif line.startswith("fields "):
            fields = dict(word.partition("=")[::2] for word in line.removeprefix("fields ").split(" "))
        elif line.startswith("stall "):
            words = (word.partition("=") for word in line.removeprefix("stall ").split())
            transcript.stalls.append({name: int(value) for name, _, value in words})
        elif line.startswith("record "):
            transcript.records.append((fields, bytes.fromhex(line.removeprefix("record "))))
        elif line.startswith("  "):
            complaints.append(line.strip())
    return transcript


def busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("no busybox")
    return Path(found)
