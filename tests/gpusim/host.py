"""One simulated host: the directory that SIMGPU_DIR names, and the environment that makes a program run on it.

Job: prepare the directory (GPUs, memory, kernel log, events), install the MPS executables, hand out the environment.
Used by tests as a context manager and by hand:

    python -m tests.gpusim.host make DIR --gpus 2 --memory-mib 2048 [--set rebuild_ms=200]
    python -m tests.gpusim.host env DIR --build build/gpusim        # lines for `eval`
    python -m tests.gpusim.host rm DIR
    python -m tests.gpusim.host install build/gpusim

Relies on: a tmpfs for the directory (memory of the simulated GPUs is its files; their locks tell who is alive).

Guarantees: every file a client writes exists from the start and is writable for every user; the directory itself is
not, so the kernel's protection of files in sticky directories never gets in the way.

On failure: SystemExit with one `gpusim:` line from the command line; OSError from the class.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "gpusim"
PROFILE = HERE / "profile_h200_580.toml"
MODULES = (
    "dialect mps_client mps_commands mps_control mps_daemon mps_endings mps_host mps_inject mps_log mps_page "
    "mps_partitions mps_server mps_spawn mps_ui mps_v3 mps_v3_clients mps_v3_commands mps_v3_config mps_v3_features "
    "mps_v3_forms mps_v3_namespaces mps_v3_partitions mps_v3_servers mps_wire"
).split()
"""What the executables need; nothing but the standard library besides."""

_SCRIPT = """#!{python} -IS
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from gpusim.{module} import main

main()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimGpu:
    """A simulated GPU as its users see it; memory in MiB."""

    minor: int
    uuid: str
    memory: int
    name: str
    bus: str

    def line(self) -> str:
        """Its line of host.conf."""
        name = self.name.replace(" ", "_")
        return f"gpu={self.minor} uuid={self.uuid} memory={self.memory} name={name} bus={self.bus}"


def profile_values(profile: Path) -> dict[str, str]:
    """The numbers of a profile that the simulated driver reads, by key."""
    table = tomllib.loads(profile.read_text(encoding="utf-8"))
    return {entry["key"]: str(entry["value"]) for entry in table.values() if isinstance(entry, dict) and "key" in entry}


def make(
    path: Path,
    *,
    minors: Iterable[int] = (0,),
    memory: int = 1024,
    profile: Path = PROFILE,
    values: dict[str, str] | None = None,
) -> list[SimGpu]:
    """Prepare `path`, which must not exist or be empty, with a GPU of `memory` MiB for each minor number, in the order of
    the bus; `values` overrides the profile."""
    head = tomllib.loads(profile.read_text(encoding="utf-8"))
    made = [
        SimGpu(
            minor=minor,
            uuid=f"GPU-{uuid.uuid5(uuid.NAMESPACE_URL, f'gpusim:{path.resolve()}:{minor}')}",
            memory=memory,
            name=head["gpu"],
            bus=f"0000:{6 + place:02x}:00.0",
        )
        for place, minor in enumerate(minors)
    ]
    numbers = {"driver": head["driver"], "cuda": str(head["cuda"]), "dialect": head["dialect"]}
    numbers |= profile_values(profile) | (values or {})
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)
    for name in ["procs"] + [f"mem/{gpu.minor}" for gpu in made]:
        (path / name).mkdir(parents=True)
        (path / name).chmod(0o1777)
    for name in ("kmsg", "events", "inject", "deaths"):
        (path / name).touch()
        (path / name).chmod(0o666)
    first = f"driver={numbers.pop('driver')} cuda={numbers.pop('cuda')}"
    lines = [gpu.line() for gpu in made] + [first] + [f"{key}={value}" for key, value in numbers.items()]
    (path / "host.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made


def interpreter() -> str:
    """The Python of the executables: the system's where it is new enough, since any user must be able to run it."""
    system = "/usr/bin/python3"
    probe = [system, "-IS", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if os.access(system, os.X_OK) and subprocess.run(probe, check=False).returncode == 0:
        return system
    return os.path.realpath(sys.executable)


def install(build: Path) -> None:
    """Put the executables into `build`/bin and their compiled modules into `build`/lib/gpusim."""
    python = interpreter()
    library = build / "lib" / "gpusim"
    library.mkdir(parents=True, exist_ok=True)
    (build / "bin").mkdir(exist_ok=True)
    for name in MODULES:
        shutil.copyfile(HERE / f"{name}.py", library / f"{name}.py")
    (library / "__init__.py").write_text('"""Installed by tests/gpusim/host.py."""\n', encoding="utf-8")
    compile_all = [python, "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash", str(library)]
    subprocess.run(compile_all, check=True)
    scripts = {
        "nvidia-cuda-mps-control": "mps_control",
        "nvidia-cuda-mps-server": "mps_server",
        "gpusim-mps-client": "mps_client",
    }
    for name, module in scripts.items():
        target = build / "bin" / name
        fresh = target.with_suffix(".new")
        fresh.write_text(_SCRIPT.format(python=python, module=module), encoding="utf-8")
        fresh.chmod(0o755)
        fresh.replace(target)


class SimHost:
    """A simulated host for the time of a `with` block, in a directory of its own below /dev/shm.

    `env()` is what a program needs to run on it; `build` holds the installed executables and the C libraries.
    """

    def __init__(
        self, *, gpus: int = 1, memory: int = 1024, build: Path = BUILD, values: dict[str, str] | None = None
    ) -> None:
        self._gpus = gpus
        self._memory = memory
        self._values = values
        self.build = build
        self.gpus: list[SimGpu] = []
        self.path = Path()

    def __enter__(self) -> Self:
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.path = Path(tempfile.mkdtemp(prefix="gpusim-", dir=shm))
        self.gpus = make(self.path, minors=range(self._gpus), memory=self._memory, values=self._values)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)

    def env(self, **more: str) -> dict[str, str]:
        """A whole environment: minimal, plus `more`."""
        return environment(self.path, self.build) | more


def environment(path: Path, build: Path) -> dict[str, str]:
    """What makes a program find the simulated host at `path`."""
    return {
        "SIMGPU_DIR": str(path),
        "LD_LIBRARY_PATH": str(build),
        "PATH": f"{build / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
    }


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected key=value: {text}")
    return key, value


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpusim.host", description="A simulated GPU host.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    maker = verbs.add_parser("make", help="prepare a directory on a tmpfs")
    maker.add_argument("dir", type=Path)
    maker.add_argument("--gpus", type=int, default=1)
    maker.add_argument("--memory-mib", type=int, default=1024)
    maker.add_argument("--profile", type=Path, default=PROFILE)
    maker.add_argument("--set", type=_assignment, action="append", default=[], metavar="KEY=VALUE")
    remover = verbs.add_parser("rm", help="remove such a directory")
    remover.add_argument("dir", type=Path)
    shower = verbs.add_parser("env", help="print the environment as shell lines")
    shower.add_argument("dir", type=Path)
    shower.add_argument("--build", type=Path, default=BUILD)
    installer = verbs.add_parser("install", help="put the MPS executables into a build directory")
    installer.add_argument("build", type=Path)
    words = parser.parse_args()
    if words.verb == "make":
        if words.dir.exists() and any(words.dir.iterdir()):
            raise SystemExit(f"gpusim: directory: is not empty: {words.dir}\n  hint: remove it with `rm` first")
        for gpu in make(
            words.dir, minors=range(words.gpus), memory=words.memory_mib, profile=words.profile, values=dict(words.set)
        ):
            print(gpu.line())
    elif words.verb == "rm":
        if not (words.dir / "host.conf").is_file():
            raise SystemExit(f"gpusim: directory: holds no simulated host: {words.dir}")
        shutil.rmtree(words.dir)
    elif words.verb == "env":
        for key, value in environment(words.dir.resolve(), words.build.resolve()).items():
            print(f'export {key}="{value}"')
    else:
        install(words.build)


if __name__ == "__main__":
    main()
