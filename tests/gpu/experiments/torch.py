"""PyTorch on kept memory: does it alias, what does it raise after a neighbour's fault, does a reader train on to the same bits (E24)?

The trainer is a client of server one, the reader of server two; without MPS the trainer faults itself. Both imported torch before.
"""

import os
import time
from typing import Any

from tests.gpu.experiments.one_server import HEARS_SECONDS
from tests.gpu.faults import MIB, commit, exported, taken
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row
from tests.gpu.servers import Server
from tests.gpu.stage import Cast, Program, Stage, Unhealthy
from tests.gpu.strings import Puppet, PuppetGone

SIZE = 8 * MIB
STEPS = 20
SECONDS = 30.0
"""For one answer of a program that imports torch or builds a model."""
TORCH = Program("torch_program", "torch", SECONDS)


def missing(stage: Stage, program: Program) -> str:
    """What keeps such a program from being used here."""
    try:
        answer = stage.puppet("asks", None, module=program.module).ask(program.verb, timeout=SECONDS)
    except PuppetGone as gone:
        return str(gone)
    return str(answer.get("missing", ""))


def times(cast: Cast) -> dict[str, Any]:
    return {
        name: {key: value for key, value in start.items() if key.endswith("_s")} for name, start in cast.starts.items()
    }


def bindings(stage: Stage, entry: dict[str, Any], server: Server | None) -> None:
    cast = stage.cast(TORCH, program=server)
    entry |= {"proof": cast.proof, "times": times(cast)}
    kept = exported(cast["program"], SIZE)
    os.close(kept["fd"])
    entry["ways"] = cast["program"].ask("bind", address=kept["address"], size=SIZE, timeout=SECONDS)["ways"]


def leaves(puppet: Puppet) -> float | None:
    """Seconds until the process is gone that ends with torch's exception; None: it stays."""
    begin = time.monotonic()
    puppet.send("leave")
    while puppet.process.poll() is None and time.monotonic() - begin < SECONDS:
        time.sleep(0.005)
    return None if puppet.process.poll() is None else time.monotonic() - begin


def trained(puppet: Puppet, address: int, *, fresh: bool) -> dict[str, Any]:
    """Some more steps of its training; `fresh` counts for the first of them."""
    return puppet.ask("train", timeout=SECONDS, address=address, size=SIZE, steps=STEPS, fresh=fresh)


def training(stage: Stage, entry: dict[str, Any], one: Server | None, two: Server | None) -> None:
    cast = stage.cast(TORCH, trainer=one, reader=two, undisturbed=two)
    culprit = stage.cast(culprit=one)
    entry |= {"proof": cast.proof, "culprit": culprit.proof, "times": times(cast)}
    trainer, reader, undisturbed = cast["trainer"], cast["reader"], cast["undisturbed"]
    kept, whole = exported(trainer, SIZE), exported(undisturbed, SIZE)
    os.close(whole["fd"])
    try:
        entry["before"] = trained(trainer, kept["address"], fresh=True)
        for name in ("undisturbed_half", "undisturbed"):
            entry[name] = trained(undisturbed, whole["address"], fresh=True)
        trainer.send("until_error", trap=one is None, seconds=HEARS_SECONDS)
        if one is not None:
            entry["fault"] = commit("trap", culprit["culprit"])
        entry["torch_said"] = trainer.hear(SECONDS)
        entry["trainer_gone_s"] = leaves(trainer)
        entry["same_address"] = taken(reader, kept["fd"], SIZE, kept["address"]) == kept["address"]
        if not entry["same_address"]:
            raise Unhealthy("reader gets the memory at another address")
        entry["after"] = trained(reader, kept["address"], fresh=False)
    finally:
        os.close(kept["fd"])


def graph(stage: Stage, entry: dict[str, Any], one: Server | None, two: Server | None) -> None:
    cast, maker = stage.cast(TORCH, program=two), stage.cast(maker=one)
    entry["proof"] = cast.proof
    kept = exported(maker["maker"], 4 * MIB)
    try:
        entry["graph"] = cast["program"].ask("graph", fds=(kept["fd"],), timeout=SECONDS)
    finally:
        os.close(kept["fd"])


def run(stage: Stage, found: ExperimentFindings) -> None:
    if why := missing(stage, TORCH):
        found["skipped"] = why
        return
    with row(stage, found, "bindings/outside") as entry:
        bindings(stage, entry, None)
    one = two = None
    if stage.mps:
        one, two = stage.open("one", "two")
    with row(stage, found, "training") as entry:
        training(stage, entry, one, two)
    if one is not None:
        one = stage.usable(one)
        with row(stage, found, "bindings/mps") as entry:
            bindings(stage, entry, one)
    with row(stage, found, "graph") as entry:
        graph(stage, entry, one, two)
