"""A connection of Ansible into a system of tests/packages/system.py: `ansible_connection: mpsr_system`, `mpsr_root` names its root.

Ansible loads it by its path (ANSIBLE_CONNECTION_PLUGINS), under the host's own Python. Each command runs as system.sh runs it,
in namespaces of its own.
"""

import os
import shutil
import subprocess
from typing import Any

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: mpsr_system
short_description: a bare system below a directory
description: commands in a system that tests/setup/system.sh has made
options:
  root:
    description: the system's root
    vars: [{name: mpsr_root}]
    required: true
"""


class Connection(ConnectionBase):  # type: ignore[misc]  # ansible has no types
    transport = "mpsr_system"
    has_pipelining = False

    def _connect(self) -> "Connection":
        self._connected = True
        return self

    def _place(self, path: str) -> str:
        return os.path.join(self.get_option("root"), path.lstrip("/"))

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        script = os.environ["MPSR_SYSTEM"]
        done = subprocess.run(
            ["bash", script, "run", self.get_option("root"), "/bin/sh", "-c", cmd],
            input=in_data or b"", capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        shutil.copy(in_path, self._place(out_path))

    def fetch_file(self, in_path: str, out_path: str) -> None:
        shutil.copy(self._place(in_path), out_path)

    def close(self, *_: Any) -> None:
        self._connected = False
