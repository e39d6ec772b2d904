"""How many clients does a server take, and what does the next one hear (E20)?"""

from tests.gpu.faults import heard
from tests.gpu.findings import Findings
from tests.gpu.stage import Gone, Puppet, Stage

MOST = 64
"""More than any driver is documented to take (48, from 590 on 60)."""
AT_A_TIME = 8


def run(stage: Stage, found: Findings) -> None:
    if not stage.mps:
        found["skipped"] = "no nvidia-cuda-mps-control on this machine"
        return
    server = stage.server("s")
    accepted = 0
    while accepted < MOST:
        batch: list[Puppet] = [stage.puppet(f"client{accepted + n}", server) for n in range(AT_A_TIME)]
        codes = []
        for puppet in batch:
            puppet.send("start")
        for puppet in batch:
            try:
                codes.append(puppet.hear(15)["code"])
            except Gone as gone:
                codes.append(gone.how)
        accepted += codes.count(0)
        found["accepted"] = accepted
        if refused := [code for code in codes if code != 0]:
            found["refused_with"] = refused[0]
            break
    if stage.puppets:
        found["first_still_works"] = heard(stage.puppets[0], "sync").get("code")
