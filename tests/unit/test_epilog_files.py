"""Files that a job's user has left in its directory, however many: the epilog drains no node for them."""

import os
from pathlib import Path

import pytest

from resilience.hooks import epilog
from resilience.model.ids import JobId
from tests.unit.domain_world import world

USER = 64201
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as an epilog is")


def test_files_of_a_user_are_removed_later_and_drain_no_node(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A site that wants its nodes drained; an epilog without time for files; then one that has it."""
    with world() as there:
        node = there.drained()
        directories = [Path(node.settings.paths.run) / "n0/jobs" / str(job) for job in (12, 13)]
        gone = Path(node.settings.paths.run) / "n0/gone"
        for job, directory, seconds in zip((12, 13), directories, (0.0, 60.0), strict=True):
            monkeypatch.setattr(epilog, "_CLEARING", seconds)
            node.prolog(node.environ(job, uid=USER))
            directory.mkdir()
            (directory / "file").touch()
            capsys.readouterr()
            assert node.epilog(node.environ(job, uid=USER)) == 0
            assert "drain" not in capsys.readouterr().out
            row = node.journal.of("job.closed")[-1]
            assert (row["job"], row["residue"], directory.exists()) == (JobId(job), [], False)
            assert bool(row["later"]) is (seconds == 0)
            assert bool(list(gone.iterdir())) is (seconds == 0)
