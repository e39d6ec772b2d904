"""One row of an experiment: what goes wrong in it is its `failed`, its processes are gone after it, and the next row begins."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tests.gpu.findings import ExperimentFindings
from tests.gpu.stage import Stage, Unhealthy
from tests.gpu.strings import PuppetGone


@contextlib.contextmanager
def row(stage: Stage, found: ExperimentFindings, name: str) -> Iterator[dict[str, Any]]:
    """The entry, on disk as far as it got whatever happens. Any error is a finding here: on a GPU there is no second try."""
    entry: dict[str, Any] = {}
    found[name] = entry
    before = len(stage.puppets)
    try:
        yield entry
    except (PuppetGone, Unhealthy) as error:
        entry["failed"] = str(error)
    except Exception as error:
        entry["failed"] = repr(error)
    finally:
        stage.end(stage.puppets[before:])
        found.save()


def without_mps(stage: Stage, found: ExperimentFindings) -> bool:
    """Nothing can be asked here; the reason is noted."""
    if not stage.mps:
        found["skipped"] = stage.without_mps
    return not stage.mps
