"""The packages, built and installed for real into a fresh Debian system: what they give, an upgrade, removal, purge."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages.system import REPO, System, codename, repacked
from tests.packages.test_lists import PROJECT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="a Debian system is made and entered as root"),
    pytest.mark.skipif(not codename(), reason="this host is no Debian"),
]
SLURM_CONF = "ClusterName=t\nSlurmctldHost=localhost\ninclude /etc/slurm/slurm-mpsr.conf\nNodeName=localhost\n"
Packages = dict[str, Path]


@pytest.fixture(scope="module")
def packages() -> Packages:
    contact = {"DEBFULLNAME": "HPC team", "DEBEMAIL": "hpc@example.org"}
    subprocess.run(["make", "deb"], cwd=REPO, env={**os.environ, **contact}, check=True)
    return {path.name.split("_")[0]: path for path in (REPO / "build/deb").glob("*.deb")}


@pytest.fixture(scope="module")
def login(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A login host: the users' package alone."""
    system = System(tmp_path_factory.mktemp("system") / "root")
    system.good("apt-get", "update", "-q")
    system.install(system.add(packages["mpsr-user"]))
    yield system
    shutil.rmtree(system.root)


@pytest.fixture(scope="module")
def system(login: System, packages: Packages) -> System:
    """A GPU node: all of it, and the site that the package's own example describes in place."""
    system = login
    system.install(*(system.add(packages[name]) for name in ("mpsr", "mpsr-plugin")), "slurm-client")
    assert system.run("sh", "-c", "ls /etc/slurm /etc/systemd/system | grep mpsr").out == "", "configures by itself"
    system.good("mpsr", "render", "--site", "/usr/share/doc/mpsr/examples/site.yaml", "--out", "/etc/slurm")
    system.write("etc/slurm/slurm.conf", SLURM_CONF)
    return system


@pytest.mark.skipif(not shutil.which("lintian"), reason="lintian is not installed: apt-get install lintian")
def test_lintian_has_nothing_to_say(packages: Packages) -> None:
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", *map(str, packages.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_login_host_has_the_command_its_page_and_completion(login: System) -> None:
    assert login.good("mpsr", "version") == f"mpsr {PROJECT['version']}\n"
    login.write("tmp/journal.jsonl", '{"event":"job.refused","wall":1.0,"job":7,"reason":"no GPU"}\n')
    assert "no GPU" in login.good("mpsr", "log", "--journal", "/tmp/journal.jsonl")
    listed = login.good("dpkg", "-L", "mpsr-user").split()
    assert {"/usr/share/man/man1/mpsr.1.gz", "/usr/share/bash-completion/completions/mpsr"} <= set(listed)
    assert not [path for path in listed if path.startswith(("/usr/libexec", "/usr/lib/systemd", "/etc"))]


def test_pages_of_the_documentation_lead_to_each_other(login: System, packages: Packages) -> None:
    login.install(login.add(packages["mpsr-doc"]))
    here = login.root / "usr/share/doc/mpsr"
    pages = list(here.rglob("*.md"))
    assert here / "how-to/install.md" in pages
    for page in pages:
        for link in re.findall(r"\]\(([\w./-]+\.md)", page.read_text()):
            target = (page.parent / link).resolve()
            assert target.exists() or here not in target.parents, f"{page}: {link}"
    login.good("apt-get", "purge", "-y", "mpsr-doc")


def test_it_is_bound_to_the_slurm_that_it_was_built_for(system: System, packages: Packages, tmp_path: Path) -> None:
    found = re.search(r"(\d+)\.(\d+)\.\d+", system.good("srun", "-V"))
    assert found
    assert f"+slurm{found[1]}.{found[2]}_" in packages["mpsr-plugin"].name
    (tmp_path / "DEBIAN").mkdir()
    for release, removed in ((f"{found[1]}.{found[2]}.99", False), (f"{int(found[1]) + 1}.02.0", True)):
        other = "Package: slurm-wlm-basic-plugins\nArchitecture: all\nMaintainer: t <t@t.invalid>\nDescription: t\n"
        (tmp_path / "DEBIAN/control").write_text(f"{other}Version: {release}\n")
        subprocess.run(["dpkg-deb", "-b", tmp_path, tmp_path / f"slurm_{release}.deb"], check=True)
        simulated = system.good("apt-get", "install", "-s", system.add(tmp_path / f"slurm_{release}.deb"))
        assert ("Remv mpsr-plugin " in simulated) == removed, simulated


def test_the_command_knows_its_version(system: System) -> None:
    assert system.good("mpsr", "version") == f"mpsr {PROJECT['version']}\n"


def test_the_site_that_it_shows_is_good(system: System) -> None:
    done = system.run("mpsr", "check", "--site", "/usr/share/doc/mpsr/examples/site.yaml")
    assert re.search(r"^0 wrong, \d+ to look at$", done.out, re.M), done.out
    assert re.search(r"^warning +pynvml: is not installed", done.out, re.M), done.out
    assert done.status == 0


def test_figures_come_out_with_debians_own_library(system: System) -> None:
    system.write("tmp/journal.jsonl", '{"event":"job.refused","wall":1.0}\n')
    assert "\nmpsr_jobs_refused_total 1.0\n" in system.good("mpsr", "metrics", "--journal", "/tmp/journal.jsonl")


def test_slurm_shows_the_options(system: System) -> None:
    assert re.search(r"^ +--mps\b", system.good("srun", "--help"), re.M)


def test_manual_pages_lie_where_man_looks(system: System) -> None:
    listed = system.good("dpkg", "-L", "mpsr")
    for page in ("man5/mpsr.yaml.5", "man8/mpsr-agent.8"):
        assert f"/usr/share/man/{page}.gz\n" in listed


def test_shells_find_the_completions(system: System) -> None:
    system.install("bash-completion", "zsh", "fish")
    bash = "source /usr/share/bash-completion/bash_completion; _completion_loader mpsr; complete -p mpsr"
    assert "mpsr" in system.good("bash", "-c", bash)
    assert system.good("zsh", "-fc", "autoload -Uz compinit; compinit -D; echo $_comps[mpsr]") == "_mpsr\n"
    assert system.good("fish", "-c", "complete -C 'mpsr stat'").startswith("status\t")


def test_the_guard_is_registered_with_dkms(system: System, packages: Packages) -> None:
    system.install(system.add(packages["mps-guard-dkms"]))
    assert system.good("dkms", "status") == "mps-guard/0.2.0: added\n"
    sources = {path.name for path in (REPO / "kernel_module").glob("*.[ch]")}
    assert sources <= {path.name for path in (system.root / "usr/src/mps-guard-0.2.0").iterdir()}
    system.good("apt-get", "purge", "-y", "mps-guard-dkms")
    assert system.good("dkms", "status") == ""
    assert not (system.root / "usr/src/mps-guard-0.2.0").exists()


def test_an_upgrade_disturbs_nobody(system: System, packages: Packages, tmp_path: Path) -> None:
    newer = [system.add(repacked(packages[name], "0.2.1", tmp_path)) for name in ("mpsr", "mpsr-user", "mpsr-plugin")]
    alone = system.run("apt-get", "install", "-s", *newer[:2])
    assert alone.status != 0, "a plugin of another version would do"
    assert "mpsr-plugin (>= 0.2.1)" in alone.out, alone.out
    system.write("tmp/upgrade.sh", (REPO / "tests/packages/upgrade.sh").read_text(), mode=0o755)
    out = system.good("/tmp/upgrade.sh", *newer)
    assert out.endswith("undisturbed\n"), out
    assert system.good("dpkg-query", "-W", "-f", "${Version}", "mpsr") == "0.2.1"


def test_it_leaves_nothing_but_the_sites_files(system: System) -> None:
    """The last one: it takes the packages off."""
    lease = "run/mpsr/n0/jobs/1.lease"
    system.write(lease, "")
    refused = system.run("apt-get", "remove", "-y", "mpsr")
    assert refused.status != 0
    assert f"mpsr: package: a job on this node still uses MPS: /{lease}" in refused.out
    assert (system.root / "usr/libexec/mpsr/epilog").exists(), "the package is still there"
    (system.root / lease).unlink()

    # systemd as far as the package asks it: the agent that the site's unit runs is stopped before its code goes
    (system.root / "run/systemd/system").mkdir(parents=True)
    system.write("usr/bin/systemctl", '#!/bin/sh\necho "$@" >>/tmp/systemctl\n', mode=0o755)
    (system.root / "usr/sbin/policy-rc.d").unlink()
    system.write("var/log/mpsr/n0/journal.jsonl", "{}\n")
    system.good("apt-get", "remove", "-y", "mpsr")
    assert (system.root / "var/log/mpsr/n0/journal.jsonl").exists(), "journals stay until a purge"
    assert re.search(r"\bstop mpsr-agent.service$", (system.root / "tmp/systemctl").read_text(), re.M)
    system.good("apt-get", "remove", "-y", "mpsr-plugin")
    assert "--mps" not in system.good("srun", "--help"), "plugstack.conf still names the plugin, and Slurm goes on"

    system.good("apt-get", "purge", "-y", "mpsr", "mpsr-plugin", "mpsr-user")
    left = system.good("find", "/", "-xdev", "(", "-name", "*mpsr*", "-o", "-path", "*/resilience*", ")")
    sites = [line for line in left.splitlines() if line.startswith(("/etc/slurm/", "/packages/", "/etc/apt/"))]
    assert sorted(left.splitlines()) == sorted(sites)
