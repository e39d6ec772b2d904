"""What a hardware run says about each assumption of the simulator's profile: `python3 -m tests.gpu.verdicts results.json…`.

A verdict brings findings into the form of the profile's value, so that the two can be compared; it judges nothing else. It agrees only
where the run proves that its processes were what it takes them for, and were well before. Where an experiment was left out, did not get
that far or lacks that proof, the verdict is `Unseen` with the reason, never a guess; where only a part was seen it is judged by that part,
and says what is missing. tests/conformance/test_hardware_run.py asserts the verdicts on the simulated GPU and records them on a real one.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.gpu import judge_ends, judge_faults, judge_memory
from tests.gpu.proof import Found, Measurement, Unseen
from tests.gpu.results import FILE, joined, replace
from tests.gpusim import profile


def exactly(seen: Any, assumed: Any) -> bool:
    return bool(seen == assumed)


def as_far_as_seen(seen: Any, assumed: Any) -> bool:
    """For values by kind of fault: those that were seen."""
    return all(assumed.get(kind) == value for kind, value in seen.items())


def at_least(seen: Any, assumed: Any) -> bool:
    """For times: a busy machine adds to what the profile makes the simulator wait."""
    return bool(seen >= assumed)


@dataclass(frozen=True, slots=True)
class ExperimentVerdict:
    measure: Callable[[Found], Measurement]
    agrees: Callable[[Any, Any], bool] = exactly


VERDICTS = {
    "raw_fd_keeps_memory": ExperimentVerdict(judge_memory.raw_fd_keeps_memory),
    "memory_survives_server_fault": ExperimentVerdict(judge_memory.memory_survives_server_fault),
    "import_across_servers": ExperimentVerdict(judge_memory.import_across_servers),
    "two_servers_one_gpu": ExperimentVerdict(judge_faults.two_servers_one_gpu),
    "standby_elsewhere": ExperimentVerdict(judge_memory.standby_elsewhere),
    "standby_outside": ExperimentVerdict(judge_memory.standby_outside),
    "fault_codes": ExperimentVerdict(judge_faults.fault_codes, as_far_as_seen),
    "rare_fault_codes": ExperimentVerdict(judge_faults.rare_fault_codes, as_far_as_seen),
    "recovery_action": ExperimentVerdict(judge_faults.recovery_action),
    "innocent_code": ExperimentVerdict(judge_faults.innocent_code),
    "not_ready_from_cuinit": ExperimentVerdict(judge_faults.not_ready_from_cuinit),
    "rebuild": ExperimentVerdict(judge_faults.rebuild, at_least),
    "server_init": ExperimentVerdict(judge_faults.server_init, at_least),
    "cuinit": ExperimentVerdict(judge_faults.start_ms("cuInit"), at_least),
    "context": ExperimentVerdict(judge_faults.start_ms("cuDevicePrimaryCtxRetain"), at_least),
    "context_memory": ExperimentVerdict(judge_faults.context_memory),
    "xid_delay": ExperimentVerdict(judge_faults.xid_delay),
    "killed_busy_client": ExperimentVerdict(judge_ends.killed_busy_client),
    "kill_orders": ExperimentVerdict(judge_ends.kill_orders),
    "endings": ExperimentVerdict(judge_ends.endings),
    "server_killed": ExperimentVerdict(judge_ends.server_killed),
    "control_killed": ExperimentVerdict(judge_ends.control_killed),
    "torn_stores": ExperimentVerdict(judge_faults.torn_stores),
    "assert_xid": ExperimentVerdict(judge_faults.assert_xid),
    "client_limit": ExperimentVerdict(judge_ends.client_limit),
    "other_uid": ExperimentVerdict(judge_ends.other_uid),
    "fault_across_users": ExperimentVerdict(judge_faults.fault_across_users),
    "fd_across_users": ExperimentVerdict(judge_memory.fd_across_users),
    "terminated_client": ExperimentVerdict(judge_ends.terminated_client),
    "context_ids": ExperimentVerdict(judge_faults.context_ids),
    "fresh_memory": ExperimentVerdict(judge_memory.fresh_memory),
    "stand_in_graph": ExperimentVerdict(judge_memory.stand_in_graph),
    "torch_trains_on": ExperimentVerdict(judge_memory.torch_trains_on),
    "cupy_kernels": ExperimentVerdict(judge_memory.cupy_kernels),
}
"""By name of the assumption."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentOutcome:
    """`agrees` is None where the run does not say; `why` then has the reason. `missing`: what a partial answer lacks."""

    name: str
    id: str
    assumed: Any
    seen: Any
    agrees: bool | None
    why: str = ""
    missing: tuple[str, ...] = ()

    def line(self) -> str:
        word = {True: "as assumed", False: "OTHERWISE", None: "not seen"}[self.agrees]
        told = f"{word:<11} {self.id:<4} {self.name}: {self.why or self.seen}"
        told += f" (assumed {self.assumed})" if self.agrees is False else ""
        return told + (f" (IN PART; not seen: {'; '.join(self.missing)})" if self.missing else "")


def usable(found: Found) -> None:
    """Raises Unseen when the run's first process could not use the GPU at all: whatever failed after it says nothing."""
    plain = (found.get("environment", {}).get("found") or {}).get("plain", {})
    if plain.get("code", 0):
        raise Unseen(f"environment: no process can use the GPU (CUDA error {plain['code']})")
    if "gone" in plain:
        raise Unseen(f"environment: no process can use the GPU ({plain['gone']})")


def outcome(name: str, found: Found) -> ExperimentOutcome:
    assumption = profile.load()[name]
    try:
        usable(found)
        seen = VERDICTS[name].measure(found)
        agrees = VERDICTS[name].agrees(seen.value, assumption.value)
        if agrees and seen.unproven:
            raise Unseen(seen.unproven)
    except Unseen as unseen:
        return ExperimentOutcome(
            name=name, id=assumption.id, assumed=assumption.value, seen=None, agrees=None, why=str(unseen)
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        return ExperimentOutcome(name=name, id=assumption.id, assumed=assumption.value, seen=None, agrees=None,
                       why=f"the findings lack what it needs: {error!r}")  # fmt: skip
    return ExperimentOutcome(
        name=name, id=assumption.id, assumed=assumption.value, seen=seen.value, agrees=agrees, missing=seen.missing
    )


def outcomes(found: Found) -> list[ExperimentOutcome]:
    return [outcome(name, found) for name in VERDICTS]


def write(out: Path) -> None:
    """hypotheses.json of a run, as far as it got."""
    replace(
        out / "hypotheses.json", json.dumps([asdict(one) for one in outcomes(joined([out / FILE]))], indent=1) + "\n"
    )


def main(paths: list[Path]) -> None:
    """Say the verdicts of one run, or of several that asked different things of one machine."""
    for one in outcomes(joined(paths)):
        print(one.line())
    for path in paths:
        write(path.parent)


if __name__ == "__main__":
    main(list(map(Path, sys.argv[1:])))
