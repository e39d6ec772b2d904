"""What stands in `{run}/{node}`: leases, the active colour of each pair of servers, and which domains are there.

ports.Leases for the agent; writing and removing for prolog and epilog, which alone do that. Readers trust a lease only
when root owns the file and every directory above it (protocols.md §3), since it decides who may do what; writers
replace a file as a whole. A lease that cannot be read is told apart from one that is not there: nobody may conclude
from it that a domain is unused.
"""

import os
import re
from contextlib import suppress
from dataclasses import replace

from resilience import contract
from resilience.adapters.linux.discards import Discards
from resilience.adapters.linux.guarded_files import make_dir, make_dirs, read_regular, write_whole
from resilience.adapters.linux.rooms import Rooms
from resilience.adapters.linux.trust import check_trusted
from resilience.model.errors import WireError
from resilience.model.ids import Color, DomainKey, GpuMinor, JobId, NodeName, ServerId
from resilience.model.lease import Lease
from resilience.model.records import Sighting
from resilience.parse import lease as text
from resilience.ports import Journal

_LEASE_LIMIT = 1 << 16
"""Bytes. A lease has about 600, and 60 more for each GPU."""
_COLOR = re.compile(r"(?:a|b|q[1-9]\d{0,8})\Z")
_KEY = re.compile(r"(?:[ju]\d{1,10}|shared)(?:-sm)?\Z")


class LeaseFiles:
    """See the module. `trusted` is the uid that may own the files besides root: 0 but in tests."""

    def __init__(self, run: str, node: NodeName, journal: Journal, *, trusted: int = 0) -> None:
        self._run = run
        self._node = node
        self._journal = journal
        self._trusted = trusted
        self._discards = Discards(node, run=run)
        self._told: set[str] = set()

    # ------------------------------------------------------------------------------------------------ leases

    def path(self, job: JobId) -> str:
        return contract.path("lease", run=self._run, node=self._node, job=job)

    def job_dir(self, job: JobId) -> str:
        return contract.path("job_dir", run=self._run, node=self._node, job=job)

    def read(self, job: JobId) -> Lease | None:
        path = self.path(job)
        try:
            check_trusted(os.path.dirname(path), owner=self._trusted)
            lease = text.parse(read_regular(path, limit=_LEASE_LIMIT, owner=self._trusted))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WireError("lease", str(error.strerror), path) from error
        if lease.job != job:
            raise WireError("lease", f"is of job {lease.job}", path)
        return lease

    def survey(self) -> tuple[tuple[Lease, ...], tuple[str, ...]]:
        """Every lease that can be read, and what is wrong with the others."""
        leases: list[Lease] = []
        broken: list[str] = []
        for job in self._jobs():
            try:
                lease = self.read(job)
            except WireError as error:
                broken.append(f"{self.path(job)}: {error}")
                continue
            if lease is not None:
                leases.append(lease)
        return tuple(leases), tuple(broken)

    def all(self) -> tuple[Lease, ...]:
        leases, broken = self.survey()
        for wrong in broken:
            if wrong not in self._told:
                self._told.add(wrong)
                self._journal.append(Sighting(source="leases", text=wrong))
        return leases

    def write(self, lease: Lease) -> None:
        """Put a job's lease in place, readable for all. Raises OSError, or WireError where others could change it."""
        path = self.path(lease.job)
        make_dirs(os.path.dirname(path))
        check_trusted(os.path.dirname(path), owner=self._trusted)
        write_whole(path, text.render(lease), mode=0o644)
        self._link(lease)

    def _link(self, lease: Lease) -> None:
        """The job's names that are the same on each of its nodes: an mpiexec hands a batch script's environment to them all.

        Another node of this host (several slurmd) may have them: then its own stay, and ours does without.
        """
        links = self._links(lease.job)
        targets = {links[0]: self.path(lease.job)}
        if lease.gpus and lease.colors:
            first = ServerId(domain=lease.domain, gpu=lease.gpus[0][0], color=lease.colors[0])
            first = replace(first, color=self.active(first) or first.color)
            targets[links[1]] = contract.path(
                "pipe", run=self._run, node=self._node, key=first.domain, gpu=first.gpu, color=first.color
            )
        make_dirs(os.path.dirname(links[0]))
        for link in links:
            self._unlink(link)
        for link, target in targets.items():
            with suppress(FileExistsError):
                os.symlink(target, link)

    def _links(self, job: JobId) -> tuple[str, str]:
        return contract.path("here_lease", run=self._run, job=job), contract.path("here_pipe", run=self._run, job=job)

    def _unlink(self, link: str) -> None:
        """Remove a link of ours."""
        with suppress(FileNotFoundError):
            if os.readlink(link).startswith(contract.path("node", run=self._run, node=self._node) + "/"):
                os.unlink(link)

    def make_job_dir(self, lease: Lease, rooms: Rooms) -> None:
        self._discards.prepare()
        make_dirs(os.path.dirname(self.job_dir(lease.job)))
        rooms.make(self.job_dir(lease.job), mode=0o700, uid=lease.uid, gid=lease.gid)

    def remove(self, job: JobId) -> tuple[str, ...]:
        """Remove a job's lease, also a half-written one; returns what could not be removed."""
        path = self.path(job)
        directory, name = os.path.split(path)
        for link in self._links(job):
            try:
                self._unlink(link)
            except OSError as error:
                return (f"{link}: {error.strerror}",)
        with suppress(FileNotFoundError):
            for entry in os.listdir(directory):
                if entry == name or (entry.startswith(f"{name}.") and entry.endswith(".new")):
                    try:
                        os.unlink(f"{directory}/{entry}")
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        return (f"{directory}/{entry}: {error.strerror}",)
        return ()

    def remove_job_dir(self, job: JobId) -> tuple[str, ...]:
        wrong = self._discards.discard(self.job_dir(job))
        return (wrong,) if wrong else ()

    def _jobs(self) -> tuple[JobId, ...]:
        try:
            names = os.listdir(os.path.dirname(self.path(JobId(0))))
        except FileNotFoundError:
            return ()
        found = (name.removesuffix(".lease") for name in names if name.endswith(".lease"))
        return tuple(sorted(JobId(int(job)) for job in found if job.isascii() and job.isdigit()))

    # ------------------------------------------------------------------------------------------------ domains

    def active(self, server: ServerId) -> Color | None:
        try:
            word = read_regular(self._active(server), limit=64, owner=self._trusted).strip()
        except (OSError, WireError):
            return None
        return Color(word) if _COLOR.match(word) else None

    def set_active(self, server: ServerId) -> None:
        make_dir(os.path.dirname(self._active(server)))
        write_whole(self._active(server), f"{server.color}\n", mode=0o644)

    def domains(self) -> tuple[DomainKey, ...]:
        """Domains that are there, in use or not."""
        return tuple(
            DomainKey(name) for name in _names(os.path.dirname(self._domain(DomainKey("shared")))) if _KEY.match(name)
        )

    def servers(self, key: DomainKey) -> tuple[ServerId, ...]:
        """The pipe directories of a domain, living or not. A GPU without any is named with colour `a`."""
        found: list[ServerId] = []
        for name in _names(self._domain(key)):
            if re.fullmatch(r"g\d{1,4}", name, re.ASCII):
                colors = [one for one in _names(f"{self._domain(key)}/{name}") if _COLOR.match(one)]
                gpu = GpuMinor(int(name[1:]))
                found += [ServerId(domain=key, gpu=gpu, color=Color(color)) for color in colors or ["a"]]
        return tuple(found)

    def forget_gpu(self, key: DomainKey, gpu: GpuMinor) -> tuple[str, ...]:
        """Remove what remains of a GPU's directory once its servers are closed."""
        wrong = self._discards.discard(f"{self._domain(key)}/g{gpu}")
        return (wrong,) if wrong else ()

    def forget_domain(self, key: DomainKey) -> tuple[str, ...]:
        """Remove a domain's directory when no GPU is left in it. The caller holds its lock, which goes with it."""
        directory = self._domain(key)
        if any(name.startswith("g") for name in _names(directory)):
            return ()
        wrong = self._discards.discard(directory)
        return (wrong,) if wrong else ()

    def _active(self, server: ServerId) -> str:
        return contract.path("active", run=self._run, node=self._node, key=server.domain, gpu=server.gpu)

    def _domain(self, key: DomainKey) -> str:
        return contract.path("domain", run=self._run, node=self._node, key=key)


def _names(directory: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(directory)))
    except (FileNotFoundError, NotADirectoryError):
        return ()
