"""Does a sparse mapping swallow reads, writes, atomics and prefetches, in and outside MPS; who holds a client's UVM file (probes P1, P2)?

The requests are those of the stock driver. `not there`: the process has no descriptor of /dev/nvidia-uvm (the simulated GPU).
"""

from typing import Any

from tests.gpu import uvm
from tests.gpu.faults import MIB, WILD, commit, drop, heard, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row
from tests.gpu.servers import Server
from tests.gpu.stage import Stage
from tests.gpu.strings import Puppet

BASE = WILD & ~(2 * MIB - 1)
PTX = """
.version 6.5
.target sm_75
.address_size 64
.visible .entry probe_atomic(.param .u64 out, .param .u64 at)
{
    .reg .b64 %rd<3>;
    .reg .b32 %r<2>;
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [at];
    atom.global.add.u32 %r1, [%rd2], 1;
    st.global.u32 [%rd1], %r1;
    ret;
}
.visible .entry probe_prefetch(.param .u64 at)
{
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [at];
    prefetch.global.L2 [%rd1];
    ret;
}
"""


def access(client: Puppet, page: int) -> dict[str, Any]:
    """What each kind of access to the sparse range gives; `read` and `again` hold the bytes that a load brought."""

    def read() -> dict[str, Any]:
        heard(client, "fill", address=page, size=8, seed=1)
        loaded = heard(client, "launch", kernel="read_address", blocks=1, threads=1, values=[["p", page], ["p", BASE]])
        return {"code": loaded.get("code"), "bytes": heard(client, "peek", address=page, size=8).get("hex")}

    def launch(kernel: str, *values: Any) -> dict[str, Any]:
        return heard(client, "launch", kernel=kernel, blocks=1, threads=1, values=list(values))

    row: dict[str, Any] = {"read": read(), "write": launch("write_address", ["p", BASE], ["d", 1.5]), "again": read()}
    row["far_write"] = launch("write_address", ["p", BASE + 2 * MIB - 8], ["d", 1.5])
    row["load"] = heard(client, "load", ptx=PTX).get("code")
    row["atomic"] = launch("probe_atomic", ["p", page], ["p", BASE])
    row["prefetch"] = launch("probe_prefetch", ["p", BASE])
    row["own_page_still_works"] = heard(client, "peek", address=page, size=8)
    return row


def holders(client: Puppet, server: Server | None) -> list[dict[str, Any]]:
    """For each of the client's UVM files: does the server hold the same one?"""
    pid = server.pid() if server else 0
    mine, theirs = uvm.descriptors(client.process.pid), uvm.descriptors(pid) if pid else []
    return [
        {"client_fd": fd, "server_fds": {str(other): uvm.same_file((client.process.pid, fd), (pid, other)) for other in theirs}}
        for fd in mine
    ]  # fmt: skip


def one_row(stage: Stage, entry: dict[str, Any], server: Server | None) -> None:
    cast = stage.cast(client=server, control=None)
    client, control = cast["client"], cast["control"]
    entry |= {"proof": cast.proof, "files": holders(client, server)}
    if not uvm.descriptors(client.process.pid):
        entry["not there"] = f"the process has no descriptor of {uvm.DEVICE}"
        return
    page = region(client, 2 * MIB)
    drop(page)
    entry["control_without_mapping"] = commit("illegal-read", control)
    control.kill()
    entry["sparse"] = client.ask("sparse", base=BASE, size=2 * MIB)
    if entry["sparse"]["code"] == 0:
        entry["access"] = access(client, page["address"])


def run(stage: Stage, found: ExperimentFindings) -> None:
    with row(stage, found, "outside") as entry:
        one_row(stage, entry, None)
    if stage.mps:
        server = stage.server("s")
        with row(stage, found, "mps") as entry:
            one_row(stage, entry, server)
