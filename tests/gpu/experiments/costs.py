"""What do process start, context and the VMM calls cost, inside and outside MPS (E10, H7)?"""

from tests.gpu.faults import MIB, heard
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row
from tests.gpu.stage import Stage

ROUNDS = 3
LAYOUTS = ((2 * MIB, 100), (64 * MIB, 8))
"""Bytes of a handle and how many."""


def run(stage: Stage, found: ExperimentFindings) -> None:
    for where in ("outside", "mps") if stage.mps else ("outside",):
        server = stage.server("s") if where == "mps" else None
        with row(stage, found, where) as entry:
            cast = stage.cast(worker=server)
            entry["proof"], worker = cast.proof, cast["worker"]
            starts = entry["start_us"] = []
            for _ in range(ROUNDS):
                answer = stage.begun("client", server)
                starts.append({name: call["us"] for name, call in answer.get("calls", {}).items()} or answer)
                found.save()
            before = worker.ask("free")["value"]
            second = stage.cast(second=server)
            entry["context_mib"] = (before - worker.ask("free")["value"]) / MIB
            second.kill()
            entry["vmm_us"] = {f"{count} x {size // MIB} MiB": heard(worker, "costs", size=size, count=count, timeout=30)
                               for size, count in LAYOUTS}  # fmt: skip
