"""Which mpsr.yaml holds for this command: --config, else MPSR_CONFIG, else the contract's path, else the defaults.

A file that was named must be there. Only the last one, the contract's path, may be missing: then every setting has
its default, and `source` says so.
"""

import os
from dataclasses import dataclass

from resilience.config import mpsr_yaml
from resilience.contract import env, path
from resilience.model.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSettings:
    settings: Settings
    source: str
    """Path of the file; empty when the defaults hold because there is none."""


def find(named: str | None = None) -> FoundSettings:
    """The settings in force. Raises ConfigError."""
    chosen = named or os.environ.get(env("config"), "")
    if not chosen:
        chosen = path("config")
        if not os.path.lexists(chosen):
            return FoundSettings(settings=Settings(), source="")
    return FoundSettings(settings=mpsr_yaml.load(chosen), source=chosen)
