"""Which kernels the guard can be built for and run on here: those that setup.sh unpacked, or built, below build/guard.

`make guard GUARD=--debug` runs on the kernels that debug_kernel.sh built and on no others; without it they are left alone.
"""

import lzma
import os
import platform
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "guard"
MODULE = ROOT / "kernel_module"
WANTED = ("5.10", "5.15", "6.1", "6.12")
"""The series that the guard is meant for. Debian has no 5.15, so 5.10 of Debian 11 stands for what is older than 6.1."""
_WORD = re.compile(r"--debug(=(?P<series>[0-9.]+))?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    release: str
    headers: Path
    """What KDIR is set to."""
    image: Path | None
    """The bootable file, None when only its headers are here."""

    debug: bool = False
    """It looks for mistakes: lockdep, KASAN and others (debug.config)."""

    @property
    def series(self) -> str:
        return ".".join(self.release.split(".")[:2])


def _number(release: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", release)]


def kernels() -> tuple[Kernel, ...]:
    """The kernels that are here and asked for, oldest first."""
    word = _WORD.match(os.environ.get("GUARD", ""))
    found = []
    for place in sorted((BUILD / "kernels").glob("*"), key=lambda path: _number(path.name)):
        debug = place.name.endswith("-debug")
        if not (place / "headers").exists() or debug != bool(word):
            continue
        if word:
            if word["series"] is None or place.name.startswith(f"{word['series']}."):
                found.append(_built(place))
            continue
        image = place / "boot" / f"vmlinuz-{place.name}"
        found.append(
            Kernel(
                release=place.name,
                headers=place / "usr" / "src" / f"linux-headers-{place.name}",
                image=image if (place / "image").exists() and image.exists() else None,
            )
        )
    return tuple(found)


def _built(place: Path) -> Kernel:
    source = place / "source"
    return Kernel(
        release=place.name,
        headers=source,
        image=source / "arch" / "x86" / "boot" / "bzImage" if (place / "image").exists() else None,
        debug=True,
    )


def what_is_missing() -> str:
    """What keeps this machine from running the tier, empty when nothing does."""
    if platform.machine() != "x86_64":
        return f"the guard is for x86-64: {platform.machine()}"
    if not any(kernel.image for kernel in kernels()):
        return "no kernel below build/guard (make guard)"
    for tool in ("qemu-system-x86_64", "busybox", "sparse", "make", "gcc"):
        if shutil.which(tool) is None:
            return f"no {tool} (make guard)"
    return ""


def bootable(kernel: Kernel) -> Path:
    """What qemu starts quickest: the kernel itself where it can be unpacked here (xz), else the image as it is.

    A kernel of ours stays as it is: with KASAN inside, 6.1 does not survive qemu's direct start.

    The layout is that of Documentation/arch/x86/boot.rst: payload_offset and payload_length count from the end of the
    real mode code. Unpacking in the emulated machine would take most of the boot.
    """
    if kernel.image is None:
        raise FileNotFoundError(f"no image of {kernel.release}")
    data = kernel.image.read_bytes()
    offset, length = struct.unpack_from("<II", data, 0x248)
    begin = ((data[0x1F1] or 4) + 1) * 512 + offset
    payload = data[begin : begin + length]
    if kernel.debug or not payload.startswith(b"\xfd7zXZ\x00"):
        return kernel.image
    target = BUILD / f"vmlinux-{kernel.release}"
    if not target.exists() or target.stat().st_mtime < kernel.image.stat().st_mtime:
        partial = BUILD / f"{target.name}.{os.getpid()}.partial"  # several tests at once may want it
        partial.write_bytes(lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload))
        partial.replace(target)
    return target
