"""One experiment in this process: `python3 -m tests.gpu.one NAME FINDINGS LOG FOLDER [--small]`; FOLDER is its stage's own."""

import importlib
import sys
from pathlib import Path

from tests.gpu.findings import ExperimentFindings
from tests.gpu.stage import Stage


def main(name: str, findings: Path, log: Path, folder: Path, small: bool) -> None:
    experiment = importlib.import_module(f"tests.gpu.experiments.{name}")
    with Stage(small=small, folder=folder) as stage:
        found = ExperimentFindings(findings)
        try:
            experiment.run(stage, found)
        finally:
            found.save()
            log.write_text(stage.logs())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), "--small" in sys.argv)
