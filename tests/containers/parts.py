"""What tests of containers share: the stand-in for pyxis, built, and root directories of images."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
_STRICT = "-std=gnu11 -Wall -Wextra -Wshadow -Werror".split()


def no_containers() -> str:
    """Why this machine makes no rootless container, in words; empty when it does. In a chroot the kernel refuses."""
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed (make setup)"
    probe = subprocess.run(["unshare", "--user", "true"], check=False, capture_output=True, text=True)
    return f"no user namespaces: {probe.stderr.strip()}" if probe.returncode else ""


def standin(directory: Path) -> Path:
    """The SPANK plugin that does what pyxis does."""
    plugin = directory / "standin.so"
    subprocess.run(["gcc", *_STRICT, "-fPIC", "-shared", "-o", plugin, HERE / "standin.c"], check=True, timeout=60)
    return plugin


def bare_image(directory: Path, owner: int) -> Path:
    """An image with one static program, /inside, and nothing else: no libc, no shell."""
    directory.mkdir()
    program = directory / "inside"
    subprocess.run(["gcc", *_STRICT, "-static", "-o", program, HERE / "inside.c"], check=True, timeout=60)
    _give((directory, program), owner)
    return directory


def _give(paths: Iterable[Path], owner: int) -> None:
    """A rootless container's files are its user's, the root directory too."""
    for path in paths:
        os.chown(path, owner, owner)
