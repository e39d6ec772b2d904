"""What an experiment found, safe on disk after each entry: a hang or a crash loses only what was not found yet.

An entry that is filled in after it was set needs a `save`.
"""

import json
from pathlib import Path
from typing import Any


class ExperimentFindings(dict[str, Any]):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self.save()

    def save(self) -> None:
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(self, default=str))
        draft.rename(self.path)
