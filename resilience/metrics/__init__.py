"""Figures for admins, from the journal: which there are (families.py), their values (series.py), what changes them (fold.py).

Pure. The journal is the only source: whatever is counted here can be read there too, with the job and the reason.
Labels take few values each, which are known beforehand but for the GPUs' UUIDs: never a job, a user or a process.
"""

from resilience.metrics.families import FAMILIES, Family, MetricKind
from resilience.metrics.fold import Fold

__all__ = ["FAMILIES", "Family", "Fold", "MetricKind"]
