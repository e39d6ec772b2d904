"""requirements/: what pip may install is locked, with hashes, and follows pyproject.toml."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.setup.requirements import wanted

REPO = Path(__file__).parents[2]
PARTS = ("runtime", "dev", "build", "fuzz", "mpi", "toolkit")
_ENTRY = re.compile(r"^([a-z0-9-]+)==(\S+?)(?: ; .*)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.M)
_CHECKED = re.compile(r"--require-hashes|\$\{PIP\[@\]\}|--no-deps --no-build-isolation \.")
_WITHOUT = ("tests/setup/lock.sh", "tests/setup/torch.sh", "tests/setup/pyslurm.sh")
HINT = "make lock"


def locked(part: str) -> dict[str, str]:
    text = (REPO / f"requirements/{part}.txt").read_text()
    rest = _ENTRY.sub("", text).replace("# Rendered from pyproject.toml: make lock\n", "").strip()
    assert rest == "", f"{part}: lines without a version and hashes: {HINT}"
    return {found[1]: found[2] for found in _ENTRY.finditer(text)}


@pytest.mark.parametrize("part", PARTS)
def test_a_lock_holds_what_the_project_asks_for(part: str) -> None:
    versions = locked(part)
    for requirement in map(Requirement, wanted(part)):
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{part}: {name} is not locked: {HINT}"
        assert requirement.specifier.contains(versions[name], prereleases=True), f"{requirement}: {versions[name]}"


def test_tests_run_with_what_is_installed() -> None:
    assert locked("runtime").items() <= locked("dev").items()


def test_pip_installs_nothing_without_a_hash() -> None:
    """Each call of pip in makefile and scripts checks hashes, or installs the project alone.

    lock.sh makes the hashes; torch.sh has PyTorch's CPU build of one version, which PyPI has not; pyslurm.sh checks a hash
    of its own, in a system that is made for it.
    """
    files = [REPO / "Makefile", REPO / ".ci/run", *(REPO / "tests/setup").glob("*.sh"), *(REPO / "debian").glob("*")]
    for file in (path for path in files if path.is_file()):
        text = re.sub(r"##.*", "", file.read_text().replace("\\\n", " "))
        for call in re.findall(r"^.*\bpip(?:\"|\S*)? (?:install|download).*$", text, re.M):
            name = str(file.relative_to(REPO))
            if not call.lstrip("@\t ").startswith(("#", "printf", "say")) and name not in _WITHOUT:
                assert _CHECKED.search(call), f"{name}: {call}"
