"""A real MPI program without a compiler: `ring.py mpich|openmpi [PROGRAM ARGUMENT…]`, on the library of Debian's package.

Each rank passes its number round the ring, and all sum up what came. Rank 0 prints `N ranks, sum S`, then the Python
PROGRAM runs in each rank before they say goodbye. The values of mpi.h are those of each library's own ABI: MPICH's
handles are numbers, Open MPI's the addresses of symbols.
"""

import ctypes
import runpy
import sys
from typing import Any

_RING = 7
"""The tag of what goes round."""


class Mpich:
    name = "libmpich.so.12"

    def __init__(self, library: ctypes.CDLL) -> None:
        self.world: Any = ctypes.c_int(0x44000000)
        self.int: Any = ctypes.c_int(0x4C000405)
        self.sum: Any = ctypes.c_int(0x58000003)
        self.no_status = ctypes.c_void_p(1)


class OpenMpi:
    name = "libmpi.so.40"

    def __init__(self, library: ctypes.CDLL) -> None:
        def address(symbol: str) -> Any:
            return ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(library, symbol)))

        self.world = address("ompi_mpi_comm_world")
        self.int = address("ompi_mpi_int")
        self.sum = address("ompi_mpi_op_sum")
        self.no_status = ctypes.c_void_p(0)


KINDS: dict[str, type[Mpich] | type[OpenMpi]] = {"mpich": Mpich, "openmpi": OpenMpi}


def main(kind: str, program: list[str]) -> int:
    mpi = ctypes.CDLL(KINDS[kind].name, mode=ctypes.RTLD_GLOBAL)
    abi = KINDS[kind](mpi)

    def good(function: str, *arguments: Any) -> None:
        if status := getattr(mpi, function)(*arguments):
            raise SystemExit(f"ring: {function}: {status}")

    rank, size, came, total = (ctypes.c_int(-1) for _ in range(4))
    good("MPI_Init", None, None)
    good("MPI_Comm_rank", abi.world, ctypes.byref(rank))
    good("MPI_Comm_size", abi.world, ctypes.byref(size))
    to, source = (rank.value + 1) % size.value, (rank.value - 1) % size.value
    good("MPI_Sendrecv", ctypes.byref(rank), 1, abi.int, to, _RING, ctypes.byref(came), 1, abi.int, source, _RING,
         abi.world, abi.no_status)  # fmt: skip
    good("MPI_Allreduce", ctypes.byref(came), ctypes.byref(total), 1, abi.int, abi.sum, abi.world)
    if rank.value == 0:
        print(f"{size.value} ranks, sum {total.value}", flush=True)
    if program:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")
    good("MPI_Finalize")
    return 0 if came.value == source else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
