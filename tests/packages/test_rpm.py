"""The RPMs, built by rpmbuild and installed and removed with `rpm --root`: what they give, what they hold together, what they leave.

The root is a fresh Debian system, whose Python 3.11 stands for AppStream's. What EL would bring beside that, such as a Slurm of
each release, are RPMs without files that the test makes: rpm resolves the real dependencies against them.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages.system import REPO, CommandDone, System, codename
from tests.packages.test_lists import PROJECT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="a system is made and entered as root"),
    pytest.mark.skipif(not codename(), reason="this host is no Debian"),
    pytest.mark.skipif(not shutil.which("rpmbuild"), reason="rpmbuild is not installed: apt-get install rpm"),
]
VERSION = PROJECT["version"]
SLURM_CONF = "ClusterName=t\nSlurmctldHost=localhost\ninclude /etc/slurm/slurm-mpsr.conf\nNodeName=localhost\n"
EXAMPLE = "/usr/share/doc/mpsr/examples/site.yaml"


@pytest.fixture(scope="module")
def packages() -> dict[str, Path]:
    subprocess.run(["make", "rpm", "EL=9"], cwd=REPO, check=True)
    names = ("mpsr-user", "mpsr-plugin", "mpsr-doc", "mps-guard-dkms")
    found = {name: next((REPO / "build/rpm/el9").glob(f"{name}-[0-9]*.rpm")) for name in names}
    return {**found, "mpsr": next((REPO / "build/rpm/el9").glob("mpsr-[0-9]*.rpm"))}


def rpm(system: System, *words: str | Path) -> CommandDone:
    done = subprocess.run(
        ["rpm", "--root", system.root, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return CommandDone(status=done.returncode, out=done.stdout)


def good(system: System, *words: str | Path) -> str:
    done = rpm(system, *words)
    assert done.status == 0, f"{words}: {done.out}"
    return done.out


def empty(into: Path, name: str, version: str, provides: str = "") -> Path:
    """A package without files."""
    spec = into / f"{name}-{version}.spec"
    spec.write_text(
        f"Name: {name}\nVersion: {version}\nRelease: 1\nSummary: t\nLicense: t\nBuildArch: noarch\n"
        f"{f'Provides: {provides}' if provides else ''}\n%description\nt\n%files\n"
    )
    subprocess.run(["rpmbuild", "-bb", "--define", f"_topdir {into}", spec], check=True, capture_output=True)
    return into / f"RPMS/noarch/{name}-{version}-1.noarch.rpm"


@pytest.fixture(scope="module")
def release() -> str:
    """Slurm's release on this host, for which the plugin is built; slurmd -V needs no configuration."""
    shown = subprocess.run(["slurmd", "-V"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+", shown)
    assert found
    return found[0]


@pytest.fixture(scope="module")
def login(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A login host: the users' package alone, beside what EL has."""
    into = tmp_path_factory.mktemp("rpm")
    system = System(into / "root")
    system.good("apt-get", "update", "-q")
    system.install("python3", "slurm-client")
    needed = {
        line for path in packages.values() for line in _needs(path) if not line.startswith(("mpsr", "slurm", "python3"))
    }
    good(system, "--initdb")
    good(system, "-i", empty(into, "python3.11", "3.11.2"), empty(into, "base", "1", ", ".join(sorted(needed))))
    good(system, "-i", packages["mpsr-user"])
    yield system
    shutil.rmtree(system.root)


def _needs(package: Path) -> list[str]:
    shown = subprocess.run(["rpm", "-qp", "--requires", package], capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if not line.startswith("rpmlib(")]


@pytest.fixture(scope="module")
def system(login: System, packages: dict[str, Path], release: str, tmp_path_factory: pytest.TempPathFactory) -> System:
    """A GPU node with the site that the package's own example describes in place."""
    good(login, "-i", empty(tmp_path_factory.mktemp("slurm"), "slurm", f"{release}.8"))
    good(login, "-i", packages["mpsr"], packages["mpsr-plugin"])
    login.good("mpsr", "render", "--site", EXAMPLE, "--out", "/etc/slurm")
    login.write("etc/slurm/slurm.conf", SLURM_CONF)
    return login


def test_a_login_host_has_the_command_its_page_and_completion(login: System) -> None:
    assert login.good("mpsr", "version") == f"mpsr {VERSION}\n"
    login.write("tmp/journal.jsonl", '{"event":"job.refused","wall":1.0,"job":7,"reason":"no GPU"}\n')
    assert "no GPU" in login.good("mpsr", "log", "--journal", "/tmp/journal.jsonl")
    assert "mpsr_jobs_refused_total 1.0" in login.good("mpsr", "metrics", "--journal", "/tmp/journal.jsonl")
    listed = good(login, "-ql", "mpsr-user").replace(".1.gz\n", ".1\n").split()  # EL compresses pages
    assert {"/usr/share/man/man1/mpsr.1", "/usr/share/bash-completion/completions/mpsr"} <= set(listed)
    assert not [path for path in listed if path.startswith(("/usr/libexec", "/usr/lib/systemd", "/etc"))]


def test_what_is_bundled_is_seen_by_nothing_else(login: System) -> None:
    assert login.run("/usr/bin/python3", "-c", "import rich").status != 0
    assert "bundled(python3dist(rich))" in good(login, "-q", "--provides", "mpsr-user")
    assert (
        login.good("/usr/lib/mpsr/bin/python3", "-c", "import rich, yaml, pynvml; print(yaml.__with_libyaml__)")
        == "True\n"
    )


def test_the_plugin_belongs_to_one_release_of_slurm(
    login: System, packages: dict[str, Path], release: str, tmp_path: Path
) -> None:
    major, minor = release.split(".")
    for other in (f"{major}.{int(minor) + 1:02}.0", f"{int(major) + 1}.02.0", f"{int(major) - 1}.11.9"):
        slurm = empty(tmp_path, "slurm", other)
        refused = rpm(login, "-i", "--test", slurm, packages["mpsr-plugin"])
        assert refused.status != 0, other
        assert re.search(rf"slurm [<>]=? {major}\.\d+ is needed by mpsr-plugin", refused.out), refused.out
    assert rpm(login, "-i", "--test", empty(tmp_path, "slurm", f"{release}.99"), packages["mpsr-plugin"]).status == 0
    assert f"slurm{release}" in packages["mpsr-plugin"].name


def test_slurm_shows_the_options_and_the_site_is_good(system: System) -> None:
    assert re.search(r"^ +--mps\b", system.good("srun", "--help"), re.M)
    done = system.run("mpsr", "check", "--site", EXAMPLE)
    assert re.search(r"^0 wrong, \d+ to look at$", done.out, re.M), done.out


def test_parts_of_two_versions_do_not_mix(system: System, tmp_path: Path) -> None:
    refused = rpm(system, "-U", "--test", empty(tmp_path, "mpsr-plugin", "99"))
    assert "mpsr-plugin < " in refused.out, refused.out


@pytest.mark.parametrize(("el", "python"), [("8", "python3.11"), ("10", "python3.12")])
def test_each_release_has_its_python(el: str, python: str) -> None:
    subprocess.run(["make", "rpm", f"EL={el}"], cwd=REPO, check=True)
    (user,) = (REPO / f"build/rpm/el{el}").glob("mpsr-user-*.rpm")
    assert python in _needs(user)
    files = subprocess.run(["rpm", "-qlp", user], capture_output=True, text=True, check=True).stdout
    assert f"/usr/lib/mpsr/lib/{python}/site-packages/resilience/cli/main.py\n" in files
    compiled = re.findall(r"/markupsafe/_speedups\.cpython-(\d+)-", files)
    assert compiled == [python.removeprefix("python").replace(".", "")]


def test_the_guard_is_registered_with_dkms(system: System, packages: dict[str, Path]) -> None:
    system.install("dkms")
    good(system, "-i", packages["mps-guard-dkms"])
    assert system.good("dkms", "status").startswith("mps-guard/0.2.0: added")
    good(system, "-e", "mps-guard-dkms")
    assert system.good("dkms", "status") == ""
    assert not (system.root / "usr/src/mps-guard-0.2.0").exists()


def test_it_leaves_nothing_but_the_sites_files(system: System) -> None:
    """The last one: it takes the packages off."""
    lease = "run/mpsr/n0/jobs/1.lease"
    system.write(lease, "")
    refused = rpm(system, "-e", "mpsr")
    assert refused.status != 0
    assert f"mpsr: package: a job on this node still uses MPS: /{lease}" in refused.out
    assert (system.root / "usr/libexec/mpsr/epilog").exists(), "the package is still there"
    (system.root / lease).unlink()
    good(system, "-e", "mpsr", "mpsr-plugin", "mpsr-user")
    left = system.good("find", "/usr", "/etc", "-xdev", "(", "-name", "*mpsr*", "-o", "-path", "*/resilience*", ")")
    sites = [line for line in left.splitlines() if line.startswith(("/etc/slurm/", "/etc/apt/"))]
    assert sorted(left.splitlines()) == sorted(sites)
