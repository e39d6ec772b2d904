"""What `mpsr check` says of a node's kernel: who can trace what root starts as users, and what holds it."""

from dataclasses import replace
from pathlib import Path

import pytest

from resilience.check.enclosures import check
from resilience.check.finding import Severity
from resilience.model.settings import Paths, Settings

V2 = "31 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
FREEZER = "31 24 0:26 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
SCOPE = "proc/sys/kernel/yama/ptrace_scope"
SUBJECT = {"yama": "kernel.yama.ptrace_scope", "cgroup": "paths.cgroup", "uvm": "/dev/nvidia-uvm"}


def node(root: Path, files: dict[str, str]) -> Settings:
    """A node that is as it should be, but for `files`; None of its text is this host's."""
    good = {
        SCOPE: "1\n",
        "proc/sys/fs/suid_dumpable": "2\n",
        "proc/self/mountinfo": V2,
        "bin/mpsr-enter": "#!/bin/sh\n",
    }
    for name, text in (good | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "bin/mpsr-enter").chmod(0o755)
    return Settings(paths=Paths(launcher=str(root / "bin/mpsr-launch")))


def levels(root: Path, settings: Settings) -> dict[str, tuple[Severity, str]]:
    return {finding.subject: (finding.level, finding.lines()) for finding in check(settings, root)}


@pytest.fixture(autouse=True)
def _as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mounts of these nodes are not this host's: nobody can say whether root could write there."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)


def test_a_good_node_has_nothing_to_hear(tmp_path: Path) -> None:
    assert {level for level, _ in levels(tmp_path, node(tmp_path, {})).values()} == {Severity.FINE}


@pytest.mark.parametrize(
    ("files", "subject", "level", "words"),
    [
        ({SCOPE: "0\n"}, SUBJECT["yama"], Severity.WARNING, "take over the MPS daemons of his own domain: 0"),
        ({SCOPE: ""}, SUBJECT["yama"], Severity.WARNING, "this kernel has no Yama"),
        ({SCOPE: "3\n"}, SUBJECT["yama"], Severity.FINE, "3"),
        ({"proc/sys/fs/suid_dumpable": "1\n"}, "fs.suid_dumpable", Severity.ERROR, "could trace them"),
        (
            {"proc/self/mountinfo": FREEZER},
            SUBJECT["cgroup"],
            Severity.FINE,
            "cgroup v1, freezer, at /sys/fs/cgroup/freezer",
        ),
        ({"proc/self/mountinfo": ""}, SUBJECT["cgroup"], Severity.WARNING, "found by their descent"),
        ({"dev/nvidiactl": ""}, SUBJECT["uvm"], Severity.WARNING, "nvidia-modprobe -u -c=0"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, files: dict[str, str], subject: str, level: Severity, words: str
) -> None:
    found = levels(tmp_path, node(tmp_path, files))
    assert found[subject][0] is level
    assert words in found[subject][1]
    assert [other for other, (its, _) in found.items() if its is not Severity.FINE and other != subject] == []


def test_a_node_that_lacks_the_program_is_wrong(tmp_path: Path) -> None:
    settings = node(tmp_path, {})
    (tmp_path / "bin/mpsr-enter").unlink()
    level, text = levels(tmp_path, settings)["mpsr-enter"]
    assert (level, "install both" in text) == (Severity.ERROR, True)


def test_a_site_without_cgroups_is_told_what_that_means(tmp_path: Path) -> None:
    settings = node(tmp_path, {})
    level, text = levels(tmp_path, replace(settings, paths=replace(settings.paths, cgroup="")))["paths.cgroup"]
    assert (level, "is empty" in text) == (Severity.WARNING, True)
