"""One experiment in this process: `python3 -m tests.gpu.one NAME LOGFILE` prints its findings as one JSON line."""

import importlib
import json
import os
import sys
from pathlib import Path

from tests.gpu.stage import Stage


def main(name: str, log: Path) -> None:
    experiment = importlib.import_module(f"tests.gpu.experiments.{name}")
    with Stage(os.environ.get("MPSR_HW_MPS", "")) as stage:
        try:
            found = experiment.run(stage)
        finally:
            log.write_text(stage.logs())
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
