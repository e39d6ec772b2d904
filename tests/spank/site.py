"""The cluster of slurm.py with the plugin, leases and a node agent that lets every failure stand.

Relies on the plugin's own `run=` argument: nothing of the machine's is touched. The prolog hook writes the lease that
`mpsr prolog` would write; everything else (slurmctld, slurmd, plugin, supervisor) is the real thing.
"""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from resilience.parse import lease as lease_text
from tests.spank.node import Connection, ScriptedAgent, Words, lease, write_lease
from tests.spank.slurm import NODE, Cluster

_HOOK = r"""#!/bin/bash
[ -n "$SPANK_MPSR" ] || exit 0
mkdir -p "{run}/n0/jobs/$SLURM_JOB_ID"
chown "$SLURM_JOB_UID" "{run}/n0/jobs/$SLURM_JOB_ID"
sed -e "s/^job=.*/job=$SLURM_JOB_ID/" -e "s/^uid=.*/uid=$SLURM_JOB_UID/" "{template}" \
  >"{run}/n0/jobs/$SLURM_JOB_ID.lease"
"""


@dataclass(slots=True)
class Site:
    """`heard` holds every message of every supervisor, in order."""

    cluster: Cluster
    built: Path
    agent: ScriptedAgent
    heard: list[tuple[str, Words]] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return self.cluster.dir / "mpsr"

    def plugin(self, *arguments: str, mode: str = "optional") -> None:
        """Load the plugin with these arguments beside its paths."""
        words = [mode, str(self.built / "mpsr.so"), f"run={self.run}", f"launcher={self.built}/mpsr-launch", *arguments]
        self.cluster.plugstack(" ".join(words))

    def lease_template(self, **changes: object) -> None:
        """What the prolog's leases say from now on; job and uid are filled in."""
        text = lease_text.render(lease(self.run, **changes))  # type: ignore[arg-type]
        (self.cluster.dir / "lease.template").write_text(text)

    def serve(self) -> None:
        """Place every task on colour a, answer `none` to every exit, until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                connection = self.agent.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: Connection) -> None:
        connection.heard = self.heard
        connection.socket.settimeout(None)
        with contextlib.suppress(AssertionError, OSError):
            connection.place()
            while True:
                connection.expect("exit")
                connection.verdict("none")


@contextmanager
def site(cluster: Cluster, built: Path) -> Iterator[Site]:
    run = cluster.dir / "mpsr"
    write_lease(lease(run, job=1)).unlink()
    agent = ScriptedAgent.at(run / NODE / "agent.sock")
    agent.path.chmod(0o666)
    agent.listener.settimeout(None)
    it = Site(cluster, built, agent)
    it.lease_template()
    it.plugin()
    hook = cluster.dir / "prolog.hook"
    hook.write_text(_HOOK.format(run=run, template=cluster.dir / "lease.template"))
    hook.chmod(0o755)
    threading.Thread(target=it.serve, daemon=True).start()
    try:
        yield it
    finally:
        agent.close()
