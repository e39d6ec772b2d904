"""What `mpsr check` says of enroot's, Apptainer's and Singularity's configuration."""

from pathlib import Path

import pytest

from resilience.check.containers import check
from resilience.check.finding import Severity
from resilience.model.settings import Options, Settings

ENROOT = "enroot/mounts.d/50-mpsr.fstab"
LINE = "/run/mpsr /run/mpsr none x-create=dir,rbind,rw,nosuid,nodev\n"
SECOND = "/usr/libexec/mpsr /usr/libexec/mpsr none x-create=dir,bind,ro,nosuid,nodev\n"
APPTAINER = "apptainer/apptainer.conf"
SINGULARITY = "singularity/singularity.conf"


def said(etc: Path, files: dict[str, str], apptainer: str = "on") -> list[tuple[bool, str]]:
    """For each finding: is it a warning, and its words."""
    for name, text in files.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(text)
    findings = check(Settings(options=Options(apptainer=apptainer)), etc)
    return [(finding.level is Severity.WARNING, finding.lines()) for finding in findings]


def test_a_node_without_containers_has_nothing_to_hear(tmp_path: Path) -> None:
    assert said(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("files", "apptainer", "warns", "words"),
    [
        ({ENROOT: LINE}, "on", False, "shows /run/mpsr in containers"),
        ({ENROOT: LINE.replace("rbind", "bind")}, "on", True, "rbind in the place of bind"),
        ({ENROOT: f"# {LINE}"}, "on", True, "tasks under --mps are refused there"),
        ({ENROOT: "/run/mpsr /mnt none bind\n"}, "on", True, LINE.strip()),
        ({APPTAINER: "user bind control = yes\n"}, "on", False, "the plugin asks for it"),
        ({APPTAINER: "user bind control = no\n"}, "on", True, "takes no binds from users"),
        ({APPTAINER: "user bind control = no\nbind path = /run/mpsr\n"}, "on", False, "shows /run/mpsr"),
        ({APPTAINER: "user bind control = yes\n"}, "off", True, "bind path = /run/mpsr"),
        ({SINGULARITY: "bind path = /run/mpsr:/run/mpsr\n"}, "off", False, "shows /run/mpsr"),
        ({SINGULARITY: "#bind path = /run/mpsr\nbind path = /etc/hosts\n"}, "off", True, "options.apptainer is off"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, files: dict[str, str], apptainer: str, warns: bool, words: str
) -> None:
    (warned, text), *others = said(tmp_path, files, apptainer)
    assert warned is warns
    assert words in text
    assert all("/usr/libexec/mpsr" in line for _, line in others)


@pytest.mark.parametrize(
    ("files", "apptainer", "warns"),
    [
        ({ENROOT: LINE + SECOND}, "on", False),
        ({ENROOT: LINE}, "on", True),
        ({ENROOT: LINE + f"# {SECOND}"}, "on", True),
        ({APPTAINER: "user bind control = yes\n"}, "on", False),
        ({APPTAINER: "user bind control = no\nbind path = /run/mpsr\n"}, "on", True),
        ({APPTAINER: "user bind control = no\nbind path = /run/mpsr\nbind path = /usr/libexec/mpsr\n"}, "on", False),
        ({SINGULARITY: "bind path = /run/mpsr\n"}, "off", True),
    ],
)
def test_the_directory_of_the_endings_library_is_asked_for_too(
    tmp_path: Path, files: dict[str, str], apptainer: str, warns: bool
) -> None:
    lines = [text for warned, text in said(tmp_path, files, apptainer) if warned and "--mps-endings=safe" in text]
    assert len(lines) == warns
    assert all("/usr/libexec/mpsr" in line for line in lines)
