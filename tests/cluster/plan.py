"""What a private cluster is to look like, as one frozen value that travels as JSON from sandbox.py to init.py.

Everything lies at the production paths, but inside the sandbox's own mount namespace: the host never sees it.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

USERS = {"alice": 64101, "bob": 3_000_064_102}
"""Ordinary users of the sandbox and their uid (= gid), out of the way of Debian's ranges for real ones; bob's is as a
directory service gives it out, above 2^31."""

REPO = "/opt/mpsr"
"""Where the clone is seen, read-only, so that ordinary users can run it wherever it really lies."""
VENV = "/opt/venv"
BIN = "/opt/bin"
STATE = "/var/spool/mpsr"
"""paths.state: the host's /var/lib stays what it is, with Debian's packages in it."""
GPUSIM = f"{REPO}/build/gpusim"
SIM_DEVICES = "/run/simgpu/dev/{node}/nvidia"
"""Device files of simulated GPUs, without their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    repo: str
    """The clone on the host."""
    venv: str
    """The virtual environment on the host; empty when Debian's own Python is used."""
    nodes: tuple[str, ...]
    minors: tuple[int, ...]
    """Numbers of the device files of each node's GPUs."""
    real_gpu: str
    """Model of the real GPU, empty for the simulated one."""
    path: str
    """PATH of the real GPU's programs; empty for the simulated one."""
    libraries: str
    """LD_LIBRARY_PATH of the real GPU's driver, empty where it needs none."""
    plugin: bool
    """With mpsr (plugin, prolog, epilog, agents); False is Slurm as it was before."""
    ports: tuple[int, ...]
    """slurmctld's, then one for each node."""
    slurm: tuple[int, int]
    """Slurm's release, such as (22, 5)."""
    journal_kib: int
    """Size of the file system under /var/log/mpsr; 0: as large as need be."""
    simulated: tuple[str, ...]
    """key=value pairs that override the simulated GPU's profile."""
    site: str
    """YAML lines that are added to the site's choices."""
    options: str = ""
    """YAML lines that are added to the site's settings.options."""
    conf: tuple[str, ...] = ()
    """Lines that are added to slurm.conf."""
    accounting: int = 0
    """Port of a slurmdbd with a database of the sandbox's own; 0: none."""

    @property
    def python(self) -> str:
        return f"{VENV}/bin/python" if self.venv else "/usr/bin/python3"

    @property
    def gpus(self) -> int:
        """GPUs of each node."""
        return len(self.minors)

    @property
    def devices(self) -> str:
        """Their device files, {node} for the node's name, as gres.conf has them."""
        numbers = ",".join(map(str, self.minors))
        return ("/dev/nvidia" if self.real_gpu else SIM_DEVICES) + (f"[{numbers}]" if self.gpus > 1 else numbers)

    @property
    def cgroup(self) -> str:
        """Where its enclosures are: cgroups are the host's, and no two clusters have the same port."""
        return f"/mpsr-sandbox-{self.ports[0]}"

    def simgpu(self, node: str) -> str:
        """SIMGPU_DIR of a node; empty on a real GPU."""
        return "" if self.real_gpu else f"/run/simgpu/{node}"

    def environment(self, node: str) -> dict[str, str]:
        """What a node's daemons (and so prolog and epilog) and its tasks have in their environment."""
        base = {"PATH": f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": REPO}
        if self.real_gpu:
            libraries = {"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}
            return base | {"PATH": f"{base['PATH']}:{self.path}"} | libraries
        return base | {
            "PATH": f"{GPUSIM}/bin:{base['PATH']}",
            "LD_LIBRARY_PATH": GPUSIM,
            "SIMGPU_DIR": self.simgpu(node),
        }

    @property
    def simulation(self) -> list[tuple[str, str]]:
        """Numbers of the simulated GPU that differ from its profile."""
        return [(key, value) for key, _, value in (pair.partition("=") for pair in self.simulated)]

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def loads(text: str) -> "Plan":
        values: dict[str, Any] = json.loads(text)
        values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return Plan(**values)
