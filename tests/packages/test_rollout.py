"""A roll-out with Ansible, a second one, and a roll-back, on real Debian systems.

Three systems play a GPU node, a login host and slurmctld's host. Packages, files, Slurm and Ansible are real; no systemd runs there:
a `systemctl` that remembers what it was told stands for it, so that services are asked for and not started.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages.system import REPO, SYSTEM, System, codename
from tests.packages.test_ansible import HERE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not shutil.which("ansible-playbook"), reason="ansible is not installed: apt-get install ansible-core"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="systems are made and entered as root"),
    pytest.mark.skipif(not codename(), reason="this host is no Debian"),
]
SLURM_CONF = "ClusterName=t\nSlurmctldHost=head\nNodeName=gpu01 Gres=gpu:4,mps:400\n"
PLUGIN = "/usr/lib/x86_64-linux-gnu/slurm-wlm/mpsr.so"
_APTS = {"ld.so.cache", "mailcap"}
"""Files of /etc that Debian's own packages make anew, those that mpsr's need."""


class Site:
    """Control host: this one."""

    def __init__(self, into: Path, hosts: dict[str, System]) -> None:
        self.hosts = hosts
        self.into = into
        deb = sorted((REPO / "build/deb").glob("mpsr*.deb"))
        user = [str(path) for path in deb if path.name.startswith(("mpsr-user_", "mpsr-plugin_"))]
        node = user + [str(path) for path in deb if path.name.startswith("mpsr_")]
        groups = {"mpsr_gpu": "gpu01", "mpsr_login": "login1", "mpsr_controller": "head"}
        variables = {
            "ansible_connection": "mpsr_system",
            "ansible_python_interpreter": "/usr/bin/python3",
            "mpsr_packages_gpu": node,
            "mpsr_packages_login": user,
            "mpsr_rendered": str(into / "rendered"),
            "mpsr_site": {
                "nodes": "gpu01",
                "gpus": {"per_node": 4},
                "install": {"prefix": "/usr", "plugin": PLUGIN, "python": "/usr/bin/python3"},
            },
        }
        children = {group: {"hosts": {name: {"mpsr_root": str(hosts[name].root)}}} for group, name in groups.items()}
        (into / "inventory.json").write_text(json.dumps({"all": {"children": children, "vars": variables}}))

    def changed(self, playbook: str, *more: str) -> dict[str, int]:
        """How many tasks changed something, by host; nothing may have failed."""
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.into), "LANG": "C.UTF-8",
            "ANSIBLE_CONNECTION_PLUGINS": str(REPO / "tests/packages/connection"), "MPSR_SYSTEM": str(SYSTEM),
            "ANSIBLE_LOCAL_TEMP": str(self.into / "tmp"), "ANSIBLE_REMOTE_TEMP": "/tmp",
        }  # fmt: skip
        command = ["ansible-playbook", "-i", str(self.into / "inventory.json"), str(HERE / playbook), *more]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr
        self.said = done.stdout
        return {name: int(count) for name, count in re.findall(r"^(\w+) +: ok=\d+ +changed=(\d+)", done.stdout, re.M)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    subprocess.run(["make", "deb"], cwd=REPO, check=True)
    into = tmp_path_factory.mktemp("ansible")
    first = System(into / "gpu01")
    first.good("apt-get", "update", "-q")
    first.install("python3", "python3-apt", "slurm-client")
    first.write("etc/slurm/slurm.conf", SLURM_CONF)
    first.write("usr/bin/systemctl", (REPO / "tests/packages/systemctl.sh").read_text(), mode=0o755)
    first.write("usr/bin/systemd-tmpfiles", "#!/bin/sh\n", mode=0o755)
    (first.root / "run/systemd/system").mkdir(parents=True)
    hosts = {"gpu01": first}
    for name in ("login1", "head"):
        hosts[name] = System(into / name, like=first)
    # Debian's plugstack.conf includes a directory; here are files of a site's own
    hosts["head"].write("etc/slurm/plugstack.conf", "# ours\n")
    first.write("etc/slurm/gres.conf", "# ours\n")
    yield Site(into, hosts)
    for host in hosts.values():
        shutil.rmtree(host.root)


def files(host: System) -> dict[str, bytes]:
    etc = host.root / "etc"
    plain = (path for path in etc.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(etc)): path.read_bytes() for path in plain}


@pytest.fixture(scope="module")
def before(site: Site) -> dict[str, dict[str, bytes]]:
    return {name: files(host) for name, host in site.hosts.items()}


@pytest.fixture(scope="module")
def rolled(site: Site, before: dict[str, dict[str, bytes]]) -> Site:
    assert all(count > 0 for count in site.changed("rollout.yml").values())
    return site


def test_a_second_run_changes_nothing(rolled: Site) -> None:
    assert rolled.changed("rollout.yml") == {"gpu01": 0, "login1": 0, "head": 0}, rolled.said


def test_slurm_has_the_options_and_the_node_its_settings(rolled: Site) -> None:
    node, login = rolled.hosts["gpu01"], rolled.hosts["login1"]
    for host in rolled.hosts.values():
        assert re.search(r"^ +--mps\b", host.good("srun", "--help"), re.M)
    assert 'mode: "observe"' in (node.root / "etc/slurm/mpsr.yaml").read_text()
    assert not (login.root / "etc/slurm/mpsr.yaml").exists()
    assert not (login.root / "usr/libexec/mpsr").exists()
    assert "mpsr-agent enabled active\n" in (node.root / "tmp/units").read_text()
    assert re.search(r"^0 wrong", node.run("mpsr", "check").out, re.M)


def test_from_looking_to_acting_changes_the_settings_alone(rolled: Site) -> None:
    assert rolled.changed("rollout.yml", "-e", "mpsr_mode=act")["login1"] == 0
    assert 'mode: "act"' in (rolled.hosts["gpu01"].root / "etc/slurm/mpsr.yaml").read_text()
    assert "reload mpsr-agent" in (rolled.hosts["gpu01"].root / "tmp/systemctl").read_text()


def test_while_a_job_uses_mps_every_host_stays_as_it_is(rolled: Site) -> None:
    lease = rolled.hosts["gpu01"].root / "run/mpsr/gpu01/jobs/1.lease"
    lease.parent.mkdir(parents=True)
    lease.write_text("")
    with pytest.raises(AssertionError, match="still uses MPS"):
        rolled.changed("rollback.yml")
    assert (rolled.hosts["gpu01"].root / "usr/libexec/mpsr/epilog").exists()
    assert "slurm-mpsr.conf" in (rolled.hosts["head"].root / "etc/slurm/slurm.conf").read_text()
    lease.unlink()


def test_a_roll_back_leaves_the_hosts_as_they_were(rolled: Site, before: dict[str, dict[str, bytes]]) -> None:
    """The last one."""
    rolled.changed("rollback.yml")
    for name, host in rolled.hosts.items():
        changed = {path for path, text in files(host).items() if before[name].get(path) != text}
        assert changed <= _APTS, name
        assert before[name].keys() <= files(host).keys()
        assert "--mps" not in host.good("srun", "--help")
    assert rolled.changed("rollback.yml") == {"gpu01": 0, "login1": 0, "head": 0}
