"""mpsr render: the files say what the site chose, agree with one another, and no value can smuggle a line in."""

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.config import mpsr_yaml
from resilience.config.render import Rendered, Site, files, parse_site, write
from resilience.model.errors import ConfigError
from resilience.parse.hostlist import expand, nodes

TEMPLATES = Path(__file__).parents[2] / "templates" / "site"
DEFAULT = (TEMPLATES / "site.yaml").read_text()


def rendered(text: str) -> dict[str, str]:
    return {item.path: item.text for item in files(parse_site(text, "site.yaml"), TEMPLATES)}


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_site(text, "site.yaml")
    return caught.value.lines()


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_default_site_renders_every_file() -> None:
    assert sorted(rendered(DEFAULT)) == [
        "/etc/logrotate.d/mpsr",
        "/etc/systemd/system/mpsr-agent.service",
        "/etc/systemd/system/mpsr.slice",
        "/etc/tmpfiles.d/mpsr.conf",
        "epilog.d/50-mpsr",
        "gres.conf",
        "mpsr.yaml",
        "plugstack.conf",
        "plugstack.conf.d/mpsr.conf",
        "prolog.d/50-mpsr",
        "slurm-mpsr.conf",
    ]


def test_without_systemd_its_files_are_left_out() -> None:
    assert not [path for path in rendered("nodes: n0\nunits: none") if path.startswith("/")]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("rooms", [0, 64])
def test_systemd_takes_the_units(rooms: int, tmp_path: Path) -> None:
    """A mount namespace of the unit's own would keep the rooms that the hook server mounts from the tasks."""
    text = f"nodes: n0\ninstall: {{mpsr: /bin/true}}\nsettings: {{prolog: {{room_mib: {rooms}}}}}"
    found = rendered(text)
    for name in ("mpsr-agent.service", "mpsr.slice"):
        (tmp_path / name).write_text(found[f"/etc/systemd/system/{name}"])
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "mpsr-agent.service")]
    done = subprocess.run(
        command,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not [line for line in done.stderr.splitlines() if "mpsr" in line], done.stderr
    assert ("\nProtectSystem=full\n" in found["/etc/systemd/system/mpsr-agent.service"]) is (rooms == 0)


def test_the_rendered_settings_are_the_chosen_ones() -> None:
    text = "nodes: n0\nsettings: {recovery: {grace: 2.5}, options: {defaults: {memory: 4G}, forbidden: []}}"
    site = parse_site(text, "site.yaml")
    again = mpsr_yaml.parse(rendered(text)["mpsr.yaml"], "mpsr.yaml")
    assert again == site.settings
    assert again.recovery.grace == 2.5
    assert again.options.forbidden == ()


def test_the_plugin_line_carries_the_options() -> None:
    text = """
nodes: n0
install: {prefix: /opt/mpsr, plugin: /usr/lib/slurm-wlm/mpsr.so}
settings:
  options: {defaults: {domain: job, retries: 5, threads: ""}, locked: [domain, mps], forbidden: [domain=shared]}
"""
    assert lines(rendered(text)["plugstack.conf.d/mpsr.conf"]) == [
        "optional /usr/lib/slurm-wlm/mpsr.so launcher=/opt/mpsr/libexec/mpsr/mpsr-launch run=/run/mpsr"
        " mpsr=/opt/mpsr/bin/mpsr prolog=/etc/slurm/prolog.d/50-mpsr"
        " default.domain=job default.retries=5 lock=domain lock=mps forbid=domain=shared"
    ]


def test_a_site_may_have_batch_scripts_told_nothing() -> None:
    assert "batch_hint" not in lines(rendered("nodes: n0")["plugstack.conf.d/mpsr.conf"])[0]
    line = lines(rendered('nodes: n0\nsettings: {options: {batch_hint: "off"}}')["plugstack.conf.d/mpsr.conf"])[0]
    assert line.endswith("prolog.d/50-mpsr batch_hint=off forbid=domain=shared")


def test_a_site_may_leave_apptainer_alone() -> None:
    assert "apptainer" not in lines(rendered("nodes: n0")["plugstack.conf.d/mpsr.conf"])[0]
    line = lines(rendered('nodes: n0\nsettings: {options: {apptainer: "off"}}')["plugstack.conf.d/mpsr.conf"])[0]
    assert line.endswith("prolog.d/50-mpsr apptainer=off forbid=domain=shared")


def test_gres_of_many_nodes_and_of_one_host_playing_many() -> None:
    text = "nodes: n[0-1]\ngpus: {per_node: 2, type: sim, mps: 50, shards: 0, files: '/d/{node}/nvidia[0-1]'}"
    assert lines(rendered(text)["gres.conf"]) == [
        "AutoDetect=off",
        "NodeName=n0 Name=gpu Type=sim File=/d/n0/nvidia[0-1]",
        "NodeName=n0 Name=mps Count=100",
        "NodeName=n1 Name=gpu Type=sim File=/d/n1/nvidia[0-1]",
        "NodeName=n1 Name=mps Count=100",
    ]
    assert "Gres=gpu:sim:2,mps:100\n" in rendered(text)["slurm-mpsr.conf"]
    assert "GresTypes=gpu,mps\n" in rendered(text)["slurm-mpsr.conf"]


def test_hooks_name_the_installation_and_are_shell() -> None:
    found = rendered("nodes: n0\nslurm: {conf_dir: /srv/slurm}\ninstall: {prefix: /opt/m}")
    assert "MPSR_BIN=/opt/m/bin/mpsr MPSR_CONFIG=/srv/slurm/mpsr.yaml MPSR_DEADLINE=40\n" in found["prolog.d/50-mpsr"]
    assert found["epilog.d/50-mpsr"].endswith("exec /opt/m/libexec/mpsr/epilog\n")
    if shellcheck := shutil.which("shellcheck"):
        for path in ("prolog.d/50-mpsr", "epilog.d/50-mpsr"):
            assert subprocess.run([shellcheck, "-"], input=found[path], text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("asked", "runs"), [(None, False), ("mps=off;domain=user", False), ("mps=on;domain=user", True)]
)
def test_a_hook_runs_our_script_only_for_a_job_that_asked(tmp_path: Path, asked: str | None, runs: bool) -> None:
    script = tmp_path / "prolog"
    script.write_text('#!/bin/sh\necho "$MPSR_BIN $MPSR_CONFIG"\nexit 7\n')
    script.chmod(0o755)
    hook = tmp_path / "hook"
    text = f"nodes: n0\ninstall: {{prolog: {script}, mpsr: /m/mpsr}}"
    hook.write_text(rendered(text)["prolog.d/50-mpsr"])
    environment = {} if asked is None else {"SPANK_MPSR": asked}
    done = subprocess.run(["/bin/sh", hook], env=environment, capture_output=True, text=True, check=False, timeout=10)
    assert (done.returncode, done.stdout) == ((7, "/m/mpsr /etc/slurm/mpsr.yaml\n") if runs else (0, ""))


@pytest.mark.parametrize(
    ("partition", "asked", "seen"),
    [("a", "", "mps=on"), ("c", "", "mps=on"), ("b", "", ""), ("", "", ""), ("a", "mps=off", ""),
     ("a", "mps=on;threads=9", "mps=on;threads=9"), ("a/*", "", "")],
)  # fmt: skip
def test_a_hook_has_mps_in_a_partition_that_says_so(tmp_path: Path, partition: str, asked: str, seen: str) -> None:
    script = tmp_path / "prolog"
    script.write_text('#!/bin/sh\nprintf %s "$SPANK_MPSR"\n')
    script.chmod(0o755)
    hook = tmp_path / "hook"
    partitions = "{a: {defaults: {mps: on}}, b: {}, c: {defaults: {mps: on}}}"
    text = f"nodes: n0\ninstall: {{prolog: {script}}}\nsettings: {{options: {{partitions: {partitions}}}}}"
    hook.write_text(rendered(text)["prolog.d/50-mpsr"])
    environment = {"SLURM_JOB_PARTITION": partition} | ({"SPANK_MPSR": asked} if asked else {})
    done = subprocess.run(["/bin/sh", hook], env=environment, capture_output=True, text=True, check=True, timeout=10)
    assert done.stdout == seen


@pytest.mark.parametrize(
    ("asked", "lease", "runs"),
    [("", False, False), ("mps=off", False, False), ("", True, True), ("mps=off", True, True), ("mps=on", False, True)],
)
def test_the_epilog_runs_for_a_job_that_asked_or_has_a_lease(
    tmp_path: Path, asked: str, lease: bool, runs: bool
) -> None:
    script = tmp_path / "epilog"
    script.write_text("#!/bin/sh\nexit 7\n")
    script.chmod(0o755)
    hook = tmp_path / "hook"
    text = f"nodes: n0\ninstall: {{epilog: {script}}}\nsettings: {{paths: {{run: /tmp/{tmp_path.name}}}}}"
    hook.write_text(rendered(text)["epilog.d/50-mpsr"].replace(f"/tmp/{tmp_path.name}", str(tmp_path)))
    (tmp_path / "n0/jobs").mkdir(parents=True)
    if lease:
        (tmp_path / "n0/jobs/12.lease").touch()
    environment = {"SPANK_MPSR": asked, "SLURMD_NODENAME": "n0", "SLURM_JOB_ID": "12"}
    assert subprocess.run(["/bin/sh", hook], env=environment, check=False, timeout=10).returncode == 7 * runs


def test_a_missing_script_does_not_fail_the_prolog(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(rendered("nodes: n0\ninstall: {prolog: /nonexistent/prolog}")["prolog.d/50-mpsr"])
    assert subprocess.run(["/bin/sh", hook], env={"SPANK_MPSR": "mps=on"}, check=False, timeout=10).returncode == 0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["site.yaml: nodes: is missing"]),
        ("nodez: n0", ["unknown key: nodez", "did you mean nodes?"]),
        ("nodes: 'n0 x'", ["nodes: has a bracket that is no range, or a stray character: n0 x"]),
        ("nodes: n[3-1]", ["nodes: has a range that runs the wrong way"]),
        ("nodes: n[a]", ["nodes: has a bracket that is no range"]),
        ("nodes: 'n[0-1],n1'", ["nodes: names a node twice"]),
        ("nodes: n0\ngpu: {per_node: 1}", ["unknown key: gpu", "did you mean gpus"]),
        ("nodes: n0\ngpus: {per_node: 0}", ["gpus.per_node: is not within 1 and 256: 0"]),
        ("nodes: n0\ngpus: {per_node: 4, files: '/dev/nvidia[0-2]'}", ["gpus.files: names 3 devices, not 4"]),
        ("nodes: n0\ngpus: {mps: 100, shards: 4}", ["gres/mps and gres/shard on GPUs without a type", "gpus.type"]),
        ("nodes: n0\ngpus: {type: 'a b'}", ["gpus.type: is not a name"]),
        ("nodes: n0\ngpus: {autodetect: nvlm}", ["gpus.autodetect", "did you mean nvml?"]),
        ("nodes: n0\nslurm: {version: 22.05}", ["slurm.version: is not a string: 22.05", "put it in quotes"]),
        ('nodes: n0\nslurm: {version: "22.5"}', ["slurm.version: is not YY.MM"]),
        ("nodes: n0\nunits: sysv", ["units: is not one of the choices: 'sysv'"]),
        (
            "nodes: n0\nsettings: {recovery: {mod: act}}",
            ["unknown key: settings.recovery.mod", "settings.recovery.mode?"],
        ),
        ("nodes: n0\nsettings: {slurm: {timeout: 0}}", ["settings.slurm.timeout: is not within"]),
        (
            "nodes: n0\nsettings: {paths: {launcher: /x}}",
            ["settings.paths.launcher: is set in two", "set install.launcher"],
        ),
        (f"nodes: {'n' * 40}\nsettings: {{paths: {{run: /{'r' * 50}}}}}", ["too long for a socket's path"]),
    ],
)
def test_what_is_wrong_is_named(text: str, parts: list[str]) -> None:
    message = refusal(text)
    for part in ["mpsr: site.yaml", *parts]:
        assert part in message


INJECTIONS = [
    "x\nPrologFlags=X",
    "a;b",
    "$(id)",
    "`id`",
    "a b",
    "a'b",
    'a"b',
    "a\\b",
    "{{ 7 * 7 }}",
    "#c",
    "a\tb",
    "é",
    "a=b",
]
STRINGS = [key for key, _, kind in mpsr_yaml.leaves(Site) if kind is str]


@pytest.mark.parametrize("key", STRINGS)
@pytest.mark.parametrize("value", INJECTIONS)
def test_no_text_of_a_site_can_inject(key: str, value: str) -> None:
    with pytest.raises(ConfigError):
        parse_site(site_with(key, value), "site.yaml")
    with pytest.raises(ConfigError):
        parse_site(site_with(key, "/srv/" + value), "site.yaml")


@given(st.sampled_from(STRINGS), st.text(max_size=40).filter(lambda text: "\x00" not in text))
def test_whatever_is_accepted_keeps_the_number_of_lines(key: str, value: str) -> None:
    try:
        site = parse_site(site_with(key, value), "site.yaml")
    except ConfigError:
        return
    base = files(parse_site("nodes: n0\ninstall: {prefix: /usr}\n", "site.yaml"), TEMPLATES)
    if key in ("units", "nodes"):
        return
    for before, after in zip(base, files(site, TEMPLATES), strict=True):
        assert before.text.count("\n") == after.text.count("\n")


def site_with(key: str, value: str) -> str:
    """A site file with one dotted key set to a value, in YAML's double quotes."""
    escaped = re.sub(r"[^ -!#-\[\]-~]", lambda match: f"\\U{ord(match[0]):08x}", value)
    *sections, name = key.split(".")
    opening = "".join(f"{section}: {{" for section in sections)
    nodes = "" if key == "nodes" else "nodes: n0\n"
    return f'{nodes}{opening}{name}: "{escaped}"{"}" * len(sections)}\n'


def test_ranges_keep_their_zeros() -> None:
    assert list(expand("n[08-10,3]x", "w")) == ["n08x", "n09x", "n10x", "n3x"]
    assert nodes("a[0-1],b", "w") == ["a0", "a1", "b"]


@given(st.text("n[]-,0123456789²٣ \n", max_size=30))
def test_any_text_is_a_list_of_nodes_or_a_clear_error(text: str) -> None:
    with suppress(ConfigError):
        assert all(isinstance(word, str) for word in expand(text, "w"))


def test_files_are_written_whole_with_their_modes(tmp_path: Path) -> None:
    made = write(files(parse_site(DEFAULT, "site.yaml"), TEMPLATES), tmp_path)
    assert (tmp_path / "prolog.d/50-mpsr").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "mpsr.yaml").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "etc/tmpfiles.d/mpsr.conf").exists()
    assert sorted(made) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/mpsr\.yaml: cannot be written"):
        write((Rendered(path="mpsr.yaml", mode=0o644, text=""),), tmp_path / "file")
