"""What a simulated MPS process reads of its simulated host.

Job: `$SIMGPU_DIR/host.conf` as values: the GPUs, the driver, the numbers of the profile. host.py writes the file.

Guarantees: an unset or unreadable SIMGPU_DIR is a machine without a driver (None), a file without `gpu=` lines is a
driver without a GPU: the real daemon tells these two apart by its exit status.
"""

from __future__ import annotations

import os


class Gpu:
    """One simulated GPU: minor number, UUID, memory in MiB, marketing name, PCI bus id."""

    __slots__ = ("bus", "memory", "minor", "name", "uuid")

    def __init__(self, words: dict[str, str]) -> None:
        self.minor = int(words["gpu"])
        self.uuid = words["uuid"]
        self.memory = int(words["memory"])
        self.name = words["name"].replace("_", " ")
        self.bus = words["bus"]


class Host:
    """The whole of host.conf: `gpus` in the order of their lines, everything else as text in `values`."""

    __slots__ = ("gpus", "path", "values")

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.gpus: list[Gpu] = []
        self.values: dict[str, str] = {}
        for line in text.splitlines():
            words = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if "gpu" in words:
                self.gpus.append(Gpu(words))
            else:
                self.values.update(words)

    def number(self, key: str, default: int) -> int:
        """A number of the profile, `default` where host.conf has none."""
        return int(self.values.get(key, default))

    def visible(self, wanted: str | None) -> list[Gpu]:
        """The GPUs that CUDA_VISIBLE_DEVICES leaves: ordinals or UUIDs (a unique beginning is enough), up to
        the first bad one."""
        if wanted is None:
            return list(self.gpus)
        seen: list[Gpu] = []
        for word in wanted.split(","):
            name = word.strip()
            if name.isdigit():
                found = self.gpus[int(name) : int(name) + 1]
            else:
                found = [gpu for gpu in self.gpus if name and gpu.uuid.startswith(name)]
            if len(found) != 1 or found[0] in seen:
                break
            seen.append(found[0])
        return seen


def read() -> Host | None:
    """The host that SIMGPU_DIR names, or None where there is no (simulated) driver."""
    path = os.environ.get("SIMGPU_DIR", "")
    try:
        with open(os.path.join(path, "host.conf"), encoding="utf-8") as file:
            return Host(path, file.read()) if path else None
    except OSError:
        return None
