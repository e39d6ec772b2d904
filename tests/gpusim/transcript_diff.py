"""Where two transcripts differ: `python -m tests.gpusim.transcript_diff OLD.json NEW.json`. Status 1 when they do.

Job: the comparison that test_mps_transcripts.py makes between simulator and real daemon, and rerecord.sh between two recordings.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.gpusim.record import Transcript
from tests.gpusim.record_scenarios import ROOT_SCENARIOS


def differences(real: Transcript, ours: Transcript) -> dict[str, tuple[object, object]]:
    """`scenario / step / field` of everything that is not the same; what only root can record is left out for others."""
    found: dict[str, tuple[object, object]] = {}
    for scenario, steps in real.items():
        if scenario in ROOT_SCENARIOS and os.geteuid() != 0:
            continue
        mine = ours[scenario]
        for step in [*steps, *(extra for extra in mine if extra not in steps)]:
            left, right = steps.get(step, {}), mine.get(step, {})
            for field in left | right:
                if left.get(field) != right.get(field):
                    found[f"{scenario} / {step} / {field}"] = (left.get(field), right.get(field))
    return found


def main(old: Path, new: Path) -> int:
    left, right = (json.loads(path.read_text(encoding="utf-8"))["scenarios"] for path in (old, new))
    found = differences(left, right)
    for where, (before, after) in found.items():
        print(f"{where}\n  before {before}\n  now    {after}")
    print(f"{sum(map(len, left.values()))} steps compared, {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
