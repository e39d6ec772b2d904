"""The session: what a program says about its state so that it can be carried over a GPU fault
(docs/reference/session.md).

    with resilience.session() as s:
        u = s.array("u", (ny, nx), "float64")
        if s.fresh:
            ...                                  # first values
        for step in s.steps(1000):               # goes on after the last commit
            ...
            if s.due():
                s.commit(step, residual=r)

It joins the parts: arrays in a store, commits in a record, descriptors at the keeper, words with the supervisor, a
copy on disk now and then. Without a supervisor and keeper (a laptop) the same calls do only what makes sense there.

Guarantees: what a program gets back is exactly one committed state (docs/reference/protocols.md §8); a program whose
job asked for MPS never runs outside it; a process that has seen a fault commits nothing more. A standby cannot reach
what the active process keeps before it is promoted, and then allocates nothing before its first step.
"""

import contextlib
import dataclasses
import gc
import os
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from resilience.model.errors import GpuError, ResilienceError, StateError
from resilience.state import ending, identity, layout, local_ranks, names, record, rows, table, views
from resilience.state.bringing import bring
from resilience.state.committed import Committed
from resilience.state.driver import CudaGpu, GpuFault
from resilience.state.group import Communicator
from resilience.state.host_bytes import HostBytes
from resilience.state.layout import APPEND, CONSTANT, DEVICE, HOST, STATE, ArraySpec, Layout, check_same
from resilience.state.link import Deposit, KeeperLink, owned
from resilience.state.opening import ARRAYS, open_gpu, open_store
from resilience.state.pace import Pace
from resilience.state.record import HELD, Commit
from resilience.state.spillfile import SpilledState
from resilience.state.spills import Spills
from resilience.state.standing import Standby, cannot
from resilience.state.stores import KeptStore, Store
from resilience.state.supervisor import Supervisor, flush_streams
from resilience.state.together import NOT_OPENED, Together
from resilience.state.wipe import wipe

_opened = False
"""A program has one session: the keeper holds one state a task."""


class Session:
    """See the module and docs/reference/session.md. `gpu` is None in host memory."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        name: str = "",
        spill_seconds: float | None,
        arrays: str,
        device: int,
        overhead: float,
        verify: bool = False,
        group: Communicator | None = None,
    ) -> None:
        if arrays not in ARRAYS:
            raise StateError("session", "unknown kind of arrays", arrays, hint=f"known: {', '.join(ARRAYS)}")
        self._under_mps = bool(environ.get(names.FD))
        """The program's job asked for MPS, and a supervisor has started it or what started it."""
        if self._under_mps and not local_ranks.reaches_supervisor(environ):
            environ, name = local_ranks.alone(environ, name)
        self._environ = environ
        self._arrays = arrays
        self._device = device
        self._pace = Pace(overhead)
        self._committed = Committed(verify=verify)
        self._owner = identity.base_name(environ, name)
        self._spills = Spills(environ, spill_seconds, name)
        self._together = Together(group, self._committed, self._spills) if group is not None else None
        self.role = environ.get(names.ROLE) or "active"
        """active or standby; a standby becomes active when it is promoted."""
        self.restored_from = ""
        """What this process went on from: "" (nothing), standby, kept or disk."""
        self.gpu: CudaGpu | None = None
        self._pid = os.getpid()
        self._declared: dict[str, ArraySpec] = {}
        self._scratch: set[str] = set()
        self._held: Layout | None = None
        self._disk: SpilledState | None = None
        self._sealed = False
        self._faulted = False
        self._tell_step = False
        self._store: Store
        self._link: KeeperLink | None = None
        self._supervisor: Supervisor | None = None
        self._standby: Standby | None = None

    # ------------------------------------------------------------ opening
    def __enter__(self) -> Self:
        global _opened
        if _opened:
            raise StateError("session", "a program can open only one", "this is the second")
        _opened = True
        if self._environ.get(names.FD):
            self._supervisor = Supervisor(int(self._environ[names.FD]))
        if self.role == "standby":
            if self._together:
                cannot("ranks that commit together have no standby")
            self._standby = Standby(self._environ, self._supervisor)
        try:
            self._open()
        except GpuFault as fault:
            self._report(fault)
            raise
        except ResilienceError as error:
            _note(error)
            raise
        return self

    def _open(self) -> None:
        supervised = self._under_mps and not self._environ.get(names.ALONE)
        self.gpu = open_gpu(self._environ, self._device, self._arrays, supervised=supervised)
        if self._supervisor and self.gpu:
            ending.guard(self._environ)
        keeper = self._environ.get(names.KEEPER) if self._supervisor else None
        self._store = open_store(self.gpu, self._arrays, shared=bool(keeper))
        if self._supervisor:
            self._supervisor.session(self.role)
        if keeper:
            self._link = KeeperLink(keeper, self._environ.get(names.TOKEN, ""), self.role)
        if self.role == "active":
            self._spills.begin()
            held = owned(self._link.first if self._link else None, self._owner)
            if self._together:
                self._go_on_together(self._together, held)
            elif held:
                self._go_on(held, "kept")
            else:
                self._look_on_disk()

    def _go_on_together(self, together: Together, held: Deposit | None) -> None:
        """From the commit that all ranks have, wherever each has it; afresh where there is none. Raises StateError in all."""
        found = together.settle(held)
        if held and together.decided and found is None:
            self._go_on(held, "kept", together.decided)
        else:
            if held and self._link and self._link.drop():  # others have it no more
                with contextlib.suppress(StateError, GpuError):
                    wipe(held)
            if found:
                self._go_on_from(found)

    def _look_on_disk(self) -> None:
        """Nobody holds state: go on from what an earlier start of the job has left on disk, if anything."""
        if found := self._spills.found():
            self._go_on_from(found)

    def _go_on_from(self, found: SpilledState) -> None:
        self._disk = found
        self._committed.go_on_from_disk(found)
        self.restored_from = "disk"
        self._tell_step = True

    def _go_on(self, held: Deposit, source: str, decided: tuple[int, int, int] | None = None) -> None:
        """Have the memory of a state that another process made, in place of the stand-ins where there are some, as it was
        committed."""
        assert isinstance(self._store, KeptStore)
        assert self._link is not None
        description, fds = held
        there = layout.parse(table.read(fds[0]))
        self._committed.take_in(fds[1], there)
        if self._held is None:
            self._store.take_in(there, fds[2:])
        else:
            self._store.give_way(there, fds[2:])
        self._held = there
        self._link.remember(description, fds)
        self._committed.go_on(self._store, decided)
        self.restored_from = source
        self._tell_step = True

    # ------------------------------------------------------------ what is committed
    @property
    def sequence(self) -> int:
        """The number of the last commit, over all processes of the task; -1 before the first."""
        return self._committed.sequence

    @property
    def step(self) -> int:
        """The step of the last commit; -1 before the first."""
        return self._committed.step

    @property
    def values(self) -> dict[str, Any]:
        """The values of the last commit."""
        return self._committed.values

    @property
    def filled(self) -> dict[str, int]:
        """The committed length of each array that is appended to. Set the first ones where `fresh` is true."""
        return self._committed.filled

    # ------------------------------------------------------------ what the program declares
    @property
    def fresh(self) -> bool:
        """There is nothing to go on from: the program sets its arrays' first values."""
        self._settle()
        return self._held is None and self._disk is None

    @property
    def stream(self) -> int:
        """The CUDA stream on which the session copies; kernels launched on it need no further care. 0 on the host."""
        return self.gpu.stream if self.gpu else 0

    def array(
        self,
        name: str,
        shape: Any,
        dtype: object = "float64",
        *,
        kept: bool = True,
        where: str = DEVICE,
        device: int | None = None,
        constant: bool = False,
        append: bool = False,
    ) -> Any:
        """An array of the state, or a scratch array with kept=False. New arrays are zero-filled.

        shape: a whole number or several; () for a single item.
        dtype: a name, or a type of Python, numpy, ml_dtypes or torch.
        device: the GPU, by its number among those that the process sees; the session's own when left out.
        where: "device", or "host" for a numpy array; without a GPU, and with arrays="numpy", all are on the host.
        constant: it is written where `fresh` is true, and only read from the first step on; there once, never copied.
        append: what a commit says is filled (`commit(…, filled={name: rows})`) is not written again; there once, never copied.
        Raises StateError when the state to go on from has another array of this name, or none.
        """
        if (constant and append) or ((constant or append) and not kept):
            raise StateError(f"array {name}", "is one of kept=False, constant and append, not two")
        if device is not None and where != DEVICE:
            raise StateError(f"array {name}", "is on a device or on the host, not both", repr(where)[:80])
        if where == DEVICE:
            where = layout.on_gpu(self._device if device is None else device)
        spec = layout.spec(name, shape, dtype, where, CONSTANT if constant else APPEND if append else STATE)
        if self.gpu is None or self._arrays == "numpy":
            spec = dataclasses.replace(spec, where=HOST)
        return self._declare(spec, kept=kept)

    def host(self, name: str, nbytes: int = 1 << 18) -> HostBytes:
        """Bytes of the state, empty when new, with room for `nbytes`. Raises StateError as `array` does."""
        made: HostBytes = self._declare(layout.bytes_spec(name, nbytes), kept=True)
        return made

    def _declare(self, spec: ArraySpec, *, kept: bool) -> Any:
        name = spec.name
        if name in self._declared or name in self._scratch:
            raise StateError(f"array {name}", "declared twice")
        if not kept:
            self._scratch.add(name)
            return self._store.add(spec, kept=False)
        if self._sealed:
            raise StateError(f"array {name}", "declared after the first step or commit")
        self._settle()
        self._declared[name] = spec
        if self._held is not None:
            check_same(spec, self._held.spec(name), "held by the keeper")
        elif self._disk:
            check_same(spec, next((a for a in self._disk.arrays if a.name == name), None), "on disk")
        array = self._store.add(spec, kept=True)
        if spec.kind == APPEND:
            self.filled.setdefault(name, 0)
        if self._disk:
            self._store.fill(spec, self._disk.content.pop(name))
            if spec.kind == CONSTANT:
                views.read_only(array)
        return array

    def _settle(self) -> None:
        """A standby waits here until it is known what the active process keeps, and has stand-ins for it then."""
        if self._standby is None or self.role != "standby" or self._held is not None:
            return
        known = self._standby.wait_for_layout(self._link)
        if known is None:
            self._become_active()
            return
        if not owned(known, self._owner):
            raise StateError("standby", "the state that is kept is another program's", known[0].get("name"))
        assert isinstance(self._store, KeptStore)
        self._held = layout.parse(table.read(known[1][0]))
        self._store.stand_in(self._held)

    def _become_active(self) -> None:
        """This process has been promoted: take what is held, and the disk if nothing ever was."""
        assert self._standby is not None
        assert self._link is not None
        self.role = "active"
        self._environ = {**self._environ, names.TOKEN: self._standby.token}
        self._spills.promoted(self._environ)
        held = owned(self._link.take(self._standby.token, expected=self._held is not None), self._owner)
        if held:
            self._go_on(held, "standby")
        elif self._held is None:
            self._look_on_disk()
        else:
            raise StateError("kept state", "is another program's by now", self._owner)

    def _seal(self) -> None:
        """The declarations end: deposit a new state, or hold the declarations against the old one; a standby waits."""
        if self._sealed:
            return
        self._settle()
        there = [array.spec for array in self._held.arrays] if self._held else self._disk.arrays if self._disk else []
        if missing := {spec.name for spec in there} - self._declared.keys():
            raise StateError(f"array {min(missing)}", "is in the state to go on from, but was not declared")
        self._sealed = True
        if self.role == "standby" and self._standby:
            if self._link:
                self._link.watch()
            self._stand_by(self._standby)
        elif self._held is None and self._link and isinstance(self._store, KeptStore):
            self._deposit(self._store, self._link)
        self._store.synchronize()  # what is constant may still be written to
        self._store.protect()
        if self._link:
            self._link.watch()
        self._disk = None

    def _deposit(self, store: KeptStore, link: KeeperLink) -> None:
        """The first commit, so that whoever takes over later always finds one, and the descriptors to the keeper."""
        if not self._declared:
            return
        store.synchronize()
        store.close()
        there = store.layout
        self._committed.filled = rows.filled(self._declared.values(), self.filled)
        record_fd = self._committed.create(store, there)
        fds = [table.make(layout.render(there)), record_fd, *store.fds]
        link.put({"name": self._owner, "regions": there.sizes}, fds)

    def _stand_by(self, standby: Standby) -> None:
        if isinstance(self._store, KeptStore):
            self._store.warm(sums=self._committed.verify)
        self._store.synchronize()  # what it has rehearsed is done when it says that it is ready
        gc.collect()  # not in the middle of the promotion
        standby.wait_for_promotion()
        self._become_active()

    # ------------------------------------------------------------ steps and commits
    def wait(self) -> None:
        """End the declarations. A standby returns from here when it has been promoted; `step` and `values` are set."""
        self._seal()

    def steps(self, stop: int) -> Iterator[int]:
        """The steps that are still to do: from the one after the last commit up to stop - 1."""
        self._seal()
        return self._steps(stop)

    def _steps(self, stop: int) -> Iterator[int]:
        for step in range(self.step + 1, stop):
            yield step
            self._stepped()

    def _stepped(self) -> None:
        """The first step after a recovery is done: say so when the GPU has done it."""
        if self._tell_step:
            self._store.synchronize()
            self._tell_step = False
            if self._supervisor:
                self._supervisor.say("stepped", seq=self.sequence, at=f"{time.monotonic():.6f}")

    def due(self) -> bool:
        """Whether a commit now keeps the time that commits take to the session's `overhead`.

        A commit's cost is what the last one took, without the wait for the program's own work and without the copy to
        disk. True until this process has made its first. Each task has its own clock: ranks that must commit the same
        step let one of them decide.
        """
        return self._pace.due()

    def commit(
        self, step: int, *, filled: Mapping[str, int] | None = None, group: Communicator | None = None, **values: Any
    ) -> int:
        """Keep the arrays and `values` as the state after `step`; the number of the commit.

        group: may be named here again; all commits of a session with a group are made together.

        filled: how many rows of an array with append=True are state from now on; others keep their length.
        Waits for the GPU first, in whichever thread it is called. Raises GpuFault, or StateError when a value is no JSON.
        """
        if group is not None:
            if self._together is None:
                raise StateError("commit", "the session was opened without a group", hint=NOT_OPENED)
            self._together.check(group)
        with self.gpu.current() if self.gpu else contextlib.nullcontext():
            return self._commit(step, filled or {}, values)

    def _commit(self, step: int, filled: Mapping[str, int], values: dict[str, Any]) -> int:
        self._seal()
        lengths = rows.filled(self._declared.values(), {**self.filled, **filled})
        record.encode_values(values)  # a mistake changes nothing
        if self._faulted:
            raise StateError("commit", "this process has seen a GPU fault and must end")
        self._store.synchronize()
        began = time.monotonic()
        self._stepped()
        if self._supervisor:
            flush_streams()  # what was printed before the commit will not be printed again
        if self._together:
            asked = self._asks_to_spill()
            began += self._together.commit(self._store, step, lengths, values, asked=asked, read=self._store.read)
            self._pace.committed(began=began)
            return self.sequence
        self._committed.filled = lengths
        self._committed.write(self._store, self.sequence + 1, step, values)
        self._pace.committed(began=began)
        made = Commit(self.sequence, HELD, step, values)
        self._spills.committed(made, lengths, lambda: self._store.read(lengths), asked=self._asks_to_spill)
        return self.sequence

    def _asks_to_spill(self) -> bool:
        return self._supervisor is not None and self._supervisor.asks_to_spill()

    # ------------------------------------------------------------ the end
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            return  # a forked child: the session is its parent's
        if isinstance(error, ResilienceError):
            _note(error)
        if error is None and self.role == "standby":
            cannot("the program ended without session.steps, commit or wait, so it cannot stand by")
        fault = self._fault(error)
        if fault:
            self._report(fault)
        self._spills.finish()
        if self._together and error is None and fault is None:
            self._together.end()
        if self._link:
            if error is None and fault is None and self._link.drop():
                self._wipe()
            self._link.close()
        if error is None:
            if fault:
                raise fault  # the program ignored it: its results are not to be trusted
            self._spills.remove()
            if self._supervisor:
                self._supervisor.say("done")

    def _wipe(self) -> None:
        """Nobody goes on from the last commit any more. What the program works on is its own to the end."""
        if isinstance(self._store, KeptStore):
            self._committed.wipe()
            with contextlib.suppress(GpuError):  # of no more use to anybody either way
                self._store.wipe(work=False)

    def _fault(self, error: BaseException | None) -> GpuFault | None:
        """The GPU fault behind the end of the program. The driver is asked: it may show as any library's exception."""
        if isinstance(error, GpuFault):
            return error
        if error is None:
            try:
                self._store.synchronize()
                self._stepped()
            except GpuFault as fault:
                return fault
        return self._store.fault()

    def _report(self, fault: GpuFault) -> None:
        """Tell the supervisor and do what it says. Returns when the program is to fail with the fault."""
        self._faulted = True
        if self._supervisor is None:
            return
        text = fault.observed or str(fault)
        self._supervisor.report_fault(cuda=fault.code, call=fault.call, sequence=self.sequence, text=text)


def _note(error: ResilienceError) -> None:
    """The way out stands below the error in its traceback."""
    if error.hint:
        error.add_note(error.hint)


def session(
    *,
    name: str = "",
    spill_seconds: float | None = None,
    arrays: str = "auto",
    device: int = 0,
    overhead: float = 0.0025,
    verify: bool = False,
    group: Communicator | None = None,
) -> Session:
    """A session for use with `with`. A program of a batch script starts again here, once, under a supervisor.

    name: whose state it is within the job; "": the command that the task was started with.
    spill_seconds: shortest time between two commits that are also written to disk; None: the site's, 0: each commit.
    arrays: auto (cupy's where it works, else device buffers, numpy's without a GPU), device (never cupy's), cupy, numpy.
    device: ordinal of the GPU among those that the process sees.
    overhead: share of the program's time (0 to 1) that commits may take when `due` is asked before each.
    verify: sum the content at each commit, on the device, and compare before going on from it; StateError when it is another.
    group: the ranks that commit each step together and go on from the same one: mpi4py's communicator, or an object with its
        `Get_rank()`, `Get_size()` and `allgather(value)`. All open the session, and all end it.
    """
    bring(os.environ)
    return Session(
        os.environ,
        name=name,
        spill_seconds=spill_seconds,
        arrays=arrays,
        device=device,
        overhead=overhead,
        verify=verify,
        group=group,
    )
