"""A rank of an MPI step without an MPI library: `pmi.py pmi2|pmix [PROGRAM ARGUMENT…]`.

Does what an MPI library does through Slurm's process manager: says hello, publishes a value, meets all others at a
fence, reads the value of every other rank, meets them again, says goodbye. Between the two meetings it runs the Python
PROGRAM, as an MPI program computes. Prints `rank R of N: ` and what it read of all ranks.

PMI-2 is spoken here, as MPICH's wire protocol has it: a line to begin with, then commands behind their length in six
characters, on the socket PMI_FD. PMIx is libpmix's own client through ctypes (pmix.h: its standard's version 4).
"""

import ctypes
import os
import runpy
import socket
import sys
from typing import Protocol


class Manager(Protocol):
    rank: int
    size: int

    def put(self, key: str, value: str) -> None: ...
    def fence(self) -> None: ...
    def get(self, rank: int, key: str) -> str: ...
    def finish(self) -> None: ...


class Pmi2:
    def __init__(self) -> None:
        self._socket = socket.socket(fileno=int(os.environ["PMI_FD"]))
        self._stream = self._socket.makefile("rwb", buffering=0)
        self._job = os.environ["PMI_JOBID"]
        self._stream.write(b"cmd=init pmi_version=2 pmi_subversion=0\n")
        if b" rc=0 " not in (answer := self._stream.readline()):
            raise SystemExit(f"pmi: no PMI-2: {answer!r}")
        found = self._ask("fullinit", pmijobid=self._job, pmirank=os.environ["PMI_RANK"], threaded="FALSE")
        self.rank, self.size = int(found["rank"]), int(found["size"])

    def _ask(self, command: str, **words: str) -> dict[str, str]:
        text = "".join(f"{key}={value};" for key, value in {"cmd": command, **words}.items()).encode()
        self._stream.write(b"%6d" % len(text) + text)
        size = int(self._exactly(6))
        answer = self._exactly(size).decode()
        found = dict(pair.split("=", 1) for pair in answer.rstrip(";").split(";"))
        if found["cmd"] != f"{command}-response" or found["rc"] != "0":
            raise SystemExit(f"pmi: {command}: {answer}")
        return found

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (more := self._stream.read(size - len(data))):
                raise SystemExit("pmi: the process manager hung up")
            data += more
        return data

    def put(self, key: str, value: str) -> None:
        self._ask("kvs-put", key=key, value=value)

    def fence(self) -> None:
        self._ask("kvs-fence")

    def get(self, rank: int, key: str) -> str:
        found = self._ask("kvs-get", jobid=self._job, srcid=str(rank), key=key)
        return found["value"] if found["found"] == "TRUE" else ""

    def finish(self) -> None:
        self._ask("finalize")


class _Process(ctypes.Structure):
    _fields_ = (("nspace", ctypes.c_char * 256), ("rank", ctypes.c_uint32))


class _Data(ctypes.Union):
    _fields_ = (("string", ctypes.c_char_p), ("room", ctypes.c_uint64 * 3))


class _Value(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint16), ("data", _Data))


_STRING, _GLOBAL = 3, 3
"""PMIX_STRING, PMIX_GLOBAL."""


class Pmix:
    def __init__(self) -> None:
        self._library = ctypes.CDLL("libpmix.so.2")
        self._me = _Process()
        self._good("PMIx_Init", ctypes.byref(self._me), None, ctypes.c_size_t(0))
        self.rank, self.size = int(self._me.rank), int(os.environ["SLURM_NTASKS"])

    def _good(self, function: str, *arguments: object) -> None:
        if status := getattr(self._library, function)(*arguments):
            raise SystemExit(f"pmi: {function}: {status}")

    def put(self, key: str, value: str) -> None:
        made = _Value(type=_STRING)
        made.data.string = value.encode()
        self._good("PMIx_Put", ctypes.c_uint8(_GLOBAL), key.encode(), ctypes.byref(made))

    def fence(self) -> None:
        self._good("PMIx_Commit")
        self._good("PMIx_Fence", None, ctypes.c_size_t(0), None, ctypes.c_size_t(0))

    def get(self, rank: int, key: str) -> str:
        found = ctypes.POINTER(_Value)()
        whom = _Process(nspace=self._me.nspace, rank=rank)
        self._good("PMIx_Get", ctypes.byref(whom), key.encode(), None, ctypes.c_size_t(0), ctypes.byref(found))
        return (found.contents.data.string or b"").decode()

    def finish(self) -> None:
        self._good("PMIx_Finalize", None, ctypes.c_size_t(0))


def main(kind: str, program: list[str]) -> None:
    manager: Manager = Pmi2() if kind == "pmi2" else Pmix()
    manager.put(f"card-{manager.rank}", f"{manager.rank}@{os.environ['SLURMD_NODENAME']}")
    manager.fence()
    cards = [manager.get(rank, f"card-{rank}") for rank in range(manager.size)]
    print(f"rank {manager.rank} of {manager.size}: {' '.join(cards)}", flush=True)
    if program:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")
    manager.fence()
    manager.finish()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
