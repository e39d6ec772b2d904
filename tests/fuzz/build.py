"""Build the C targets: with clang and libFuzzer for `make fuzz`, with gcc and a main of our own for the replay of inputs."""

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLUGIN = ROOT / "spank_plugin"
TARGETS: dict[str, tuple[str, ...]] = {
    "c_hook": (),
    "c_lease": (),
    "c_lines": ("launcher/[!m]*.c", "launcher/m[!a]*.c"),  # not main.c
    "c_mpiexec": ("launcher/mpiexec.c",),
    "c_options": ("plugin/site.c",),
    "c_orders": ("launcher/agent.c", "launcher/last_call.c", "launcher/orders.c", "launcher/packet.c"),
    "c_packet": ("launcher/packet.c",),
    "c_script": (
        "plugin/batch_options.c",
        "plugin/multi_prog.c",
        "plugin/requested_options.c",
        "plugin/script.c",
        "plugin/site.c",
    ),
    "c_text": (),
}
"""The C targets, with what each needs of spank_plugin beside shared/."""
_SANITIZERS = "address,undefined"
_FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1", f"-I{PLUGIN}", f"-I{HERE}/c", "-fno-sanitize-recover=all"]


def sources(name: str) -> list[str]:
    files = (path for pattern in ("shared/*.c", *TARGETS[name]) for path in sorted(PLUGIN.glob(pattern)))
    return [str(HERE / "c" / f"{name}.c"), *map(str, files)]


def clang() -> str:
    """clang, or Debian's name of a release of it; empty without one."""
    for name in ("clang", *(f"clang-{version}" for version in range(21, 13, -1))):
        if found := shutil.which(name):
            return found
    return ""


def fuzzer(name: str) -> Path:
    built = ROOT / "build/fuzz/bin" / name
    built.parent.mkdir(parents=True, exist_ok=True)
    _run([clang() or "clang", *_FLAGS, f"-fsanitize=fuzzer,{_SANITIZERS}", "-o", str(built), *sources(name)])
    return built


def replayer(name: str, into: Path) -> Path:
    """A program that gives each file of its command line to the target."""
    built = into / name
    _run(["gcc", *_FLAGS, f"-fsanitize={_SANITIZERS}", "-o", str(built), str(HERE / "c/replay.c"), *sources(name)])
    return built


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)
