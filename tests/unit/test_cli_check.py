"""mpsr check: what mpsr render makes is good, and each way of spoiling it is named with the way out."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.check import plugstack, slurm_conf
from resilience.check.finding import Finding, Severity
from resilience.cli.main import main
from resilience.config import render
from resilience.config.mpsr_yaml import parse

TEMPLATES = Path(__file__).parents[2] / "templates" / "site"


class Site:
    """A rendered site in a directory, with everything that its files name."""

    def __init__(self, root: Path, options: str = "") -> None:
        self.conf = root / "etc"
        opt = root / "opt"
        opt.mkdir()
        for name in (
            "mpsr-launch",
            "mpsr-hook",
            "mpsr-enter",
            "python3",
            "prolog",
            "epilog",
            "mpsr",
            "scontrol",
            "squeue",
            "mps-control",
        ):
            (opt / name).write_text("#!/bin/sh\n")
            (opt / name).chmod(0o755)
        for name in ("run", "log"):
            (root / name).mkdir()
        (opt / "mpsr.so").write_text("")
        (root / "kmsg").write_text("")
        self.text = f"""
nodes: n0
units: none
slurm: {{conf_dir: {self.conf}}}
install: {{plugin: {opt}/mpsr.so, launcher: {opt}/mpsr-launch, prolog: {opt}/prolog, epilog: {opt}/epilog, hook: {opt}/mpsr-hook,
          mpsr: {opt}/mpsr, python: {opt}/python3}}
settings:
  paths: {{run: /r{len(str(root))}, log: {root}/log, kmsg: {root}/kmsg, scontrol: {opt}/scontrol, mps_control: {opt}/mps-control}}
  options: {{{options}}}
"""
        site = render.parse_site(self.text, "site.yaml")
        render.write(render.files(site, TEMPLATES), self.conf)
        (self.conf / "site.yaml").write_text(self.text)
        (self.conf / "slurm.conf").write_text(f"ClusterName=t\ninclude {self.conf}/slurm-mpsr.conf\n")

    def change(self, file: str, old: str, new: str) -> None:
        path = self.conf / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def slurm(self) -> list[Finding]:
        return slurm_conf.check(str(self.conf / "slurm.conf"))[0]

    def plugstack(self) -> list[Finding]:
        settings = parse((self.conf / "mpsr.yaml").read_text(), "mpsr.yaml")
        return plugstack.check(str(self.conf / "plugstack.conf"), settings)


@pytest.mark.parametrize("kind", ["none", "pmi2", "pmix"])
def test_what_every_step_is_wired_for_is_named(site: "Site", kind: str) -> None:
    site.change("slurm.conf", "ClusterName=t\n", f"ClusterName=t\nMpiDefault={kind}\n")
    found = next(finding for finding in site.slurm() if finding.subject.endswith(": MpiDefault"))
    assert (found.level, found.text.split(":")[0]) == (Severity.FINE if kind == "none" else Severity.NOTE, kind)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, "defaults: {domain: job}, locked: [domain], forbidden: [retries=0]")


def errors(findings: list[Finding]) -> str:
    return "\n".join(finding.lines() for finding in findings if finding.level is Severity.ERROR)


def test_a_rendered_site_is_good(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", f"{site.conf}/mpsr.yaml", "--site", f"{site.conf}/site.yaml"]
    assert main(["check", *arguments, "--slurm-conf", f"{site.conf}/slurm.conf"]) == 0
    out = capsys.readouterr().out
    assert "error" not in out
    assert re.search(r"^0 wrong, \d to look at$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("PrologFlags=Alloc", "", ["PrologFlags: has no Alloc: not set", "PrologFlags=Alloc"]),
        ("PrologFlags=Alloc", "PrologFlag=Alloc", ["PrologFlags: has no Alloc", "PrologFlag looks like PrologFlags"]),
        ("PrologFlags=Alloc", "PrologFlags=Aloc", ["unknown flag: Aloc", "did you mean Alloc?"]),
        ("PrologFlags=Alloc", "PrologFlags=Serial", ["has no Alloc: Serial"]),
        ("GresTypes=gpu,mps", "GresTypes=mps", ["GresTypes: has no gpu: mps"]),
        ("SelectType=select/cons_tres", "SelectType=select/linear", ["cannot share a GPU: select/linear"]),
        ("Prolog={conf}/prolog.d/*", "", ["Prolog: is not set"]),
        ("Epilog={conf}/epilog.d/*", "Epilog=/bin/true", ["Epilog: does not lead to ours: /bin/true", "50-mpsr"]),
    ],
)
def test_a_spoilt_slurm_conf_is_named(site: Site, old: str, new: str, parts: list[str]) -> None:
    site.change("slurm-mpsr.conf", old.format(conf=site.conf), new)
    said = errors(site.slurm())
    for part in parts:
        assert part in said


@pytest.mark.parametrize("flags", ["Alloc", "alloc,Serial", "Contain", "X11"])
def test_flags_that_set_alloc_will_do(site: Site, flags: str) -> None:
    site.change("slurm-mpsr.conf", "PrologFlags=Alloc", f"PrologFlags={flags}")
    assert errors(site.slurm()) == ""


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (
            "PrologFlags=Alloc,Contain,NoHold",
            ["PrologFlags: the last line replaces", "has not: Contain,NoHold", "slurm.prolog_flags"],
        ),
        ("PrologFlags=X11\nPrologFlags=Contain", ["has not: X11,Contain"]),
        ("GresTypes=gpu,nic", ["GresTypes: the last line replaces", "has not: nic", "slurm.gres_types"]),
    ],
)
def test_what_our_lines_take_from_the_sites_is_named(site: Site, line: str, parts: list[str]) -> None:
    site.change("slurm.conf", "include", f"{line}\ninclude")
    key = line.partition("=")[0]
    assert not [one for one in site.slurm() if one.subject.endswith(key) and one.level is Severity.FINE]
    for part in parts:
        assert part in errors(site.slurm())


def test_what_the_site_has_in_its_site_file_is_kept(site: Site) -> None:
    site.text = site.text.replace("slurm: {", "slurm: {prolog_flags: 'Contain,X11', gres_types: 'nic,gpu', ")
    rendered = {file.path: file.text for file in render.files(render.parse_site(site.text, "site.yaml"), TEMPLATES)}
    assert "\nPrologFlags=Contain,X11,Alloc\n" in rendered["slurm-mpsr.conf"]
    assert "\nGresTypes=nic,gpu,mps\n" in rendered["slurm-mpsr.conf"]
    (site.conf / "slurm-mpsr.conf").write_text(rendered["slurm-mpsr.conf"])
    site.change("slurm.conf", "include", "PrologFlags=X11,contain\nGresTypes=gpu,nic\ninclude")
    assert errors(site.slurm()) == ""


def test_a_site_may_keep_its_own_lines(site: Site) -> None:
    site.text = site.text.replace("slurm: {", "slurm: {prolog_flags: '', gres_types: '', ")
    text = {file.path: file.text for file in render.files(render.parse_site(site.text, "site.yaml"), TEMPLATES)}[
        "slurm-mpsr.conf"
    ]
    assert not re.search(r"^(PrologFlags|GresTypes)", text, re.MULTILINE)
    (site.conf / "slurm-mpsr.conf").write_text(text)
    assert "PrologFlags: has no Alloc: not set" in errors(site.slurm())
    site.change("slurm.conf", "include", "PrologFlags=Contain\nGresTypes=gpu,nic,mps\ninclude")
    assert errors(site.slurm()) == ""


def test_a_hook_of_the_sites_that_ours_replaces_is_named(site: Site) -> None:
    site.change("slurm.conf", "include", "Prolog=/usr/site/prolog\ninclude")
    said = [one.lines() for one in site.slurm() if one.level is Severity.WARNING]
    assert len(said) == 1
    assert "Prolog: the last line replaces an earlier one: /usr/site/prolog" in said[0]


@pytest.mark.parametrize(
    ("shown", "parts"),
    [
        ("PrologFlags = Alloc\nGresTypes = gpu,mps", []),
        ("PrologFlags = Alloc,Contain,X11\nGresTypes = gpu,mps,shard", []),
        (
            "PrologFlags = (null)\nGresTypes = gpu,mps",
            ["PrologFlags: has not what slurm.conf names: Alloc", "has no Alloc: (null)"],
        ),
        (
            "PrologFlags = Alloc\nGresTypes = gpu",
            ["GresTypes: has not what slurm.conf names: mps; it has gpu", "restart slurmctld"],
        ),
        ("PrologFlags = Alloc\nGresTypes = (null)", ["slurmctld: GresTypes: has no gpu"]),
    ],
)
def test_what_slurmctld_has_is_compared(
    site: Site, shown: str, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (site.conf.parent / "opt/scontrol").write_text(f"#!/bin/sh\n[ $2 = config ] && cat <<'END'\n{shown}\nEND\n")
    status = main(["check", "--config", f"{site.conf}/mpsr.yaml", "--slurm-conf", f"{site.conf}/slurm.conf"])
    said = [line for line in capsys.readouterr().out.splitlines() if "slurmctld" in line]
    assert status == (2 if parts else 0)
    assert all(any(part in line for line in said) for part in parts), said


def test_a_hook_that_starts_python_is_noted(site: Site) -> None:
    """One of before, which `mpsr render` would make anew, and one whose program is not there."""
    site.change("epilog.d/50-mpsr", "MPSR_HOOK=", "OTHER=")
    Path(site.conf.parent / "opt/mpsr-hook").unlink()
    noted = {finding.subject.rpartition(": ")[2]: finding for finding in site.slurm() if finding.level is Severity.NOTE}
    assert noted["Prolog"].text.endswith(f"starts Python for each job: {site.conf.parent}/opt/mpsr-hook")
    assert noted["Epilog"].text.endswith("starts Python for each job: no MPSR_HOOK")


def test_a_hook_that_cannot_run_is_named(site: Site) -> None:
    (site.conf / "prolog.d/50-mpsr").chmod(0o644)
    assert "Prolog: cannot be executed" in errors(site.slurm())


def test_a_missing_include_and_a_circle_are_named(site: Site) -> None:
    site.change("slurm.conf", "slurm-mpsr.conf", "missing.conf")
    assert "missing.conf: cannot be read: No such file" in errors(site.slurm())
    site.change("slurm.conf", "missing.conf", "slurm.conf")
    assert "includes too deeply" in errors(site.slurm())


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("optional", "optionl", ["unknown word: optionl", "did you mean optional?"]),
        ("mpsr.so", "mpsr.so.old", ["does not load mpsr.so"]),
        ("opt/mpsr.so", "opt/gone/mpsr.so", ["is not there", "build it for this Slurm release"]),
        ("launcher=", "launchr=", ["unknown argument: launchr", "did you mean launcher?"]),
        ("default.domain=job", "default.domian=job", ["unknown option key: domian", "did you mean domain?"]),
        ("default.domain=job", "default.domain=jobs", ["bad value for domain: jobs"]),
        ("default.domain=job", "default.domain=user", ["default.*: differs from mpsr.yaml", "mpsr render"]),
        (" lock=domain", "", ["lock: differs from mpsr.yaml: nothing here, ['domain'] there"]),
        ("forbid=retries=0", "forbid=retries=1", ["forbid: differs from mpsr.yaml"]),
        (" run=/r", " run=/other", ["run: differs from mpsr.yaml"]),
        (" run=/r", " apptainer=off run=/r", ["apptainer: differs from mpsr.yaml: off here, on there"]),
        (" run=/r", " batch_hint=off run=/r", ["batch_hint: differs from mpsr.yaml: off here, on there"]),
        ("lock=domain", "lockdomain", ["is not key=value: lockdomain"]),
        (
            "forbid=retries=0",
            "forbid=retries=0 partition=a lock=mps",
            ["partition=a: differs from mpsr.yaml: lock=mps here, nothing there"],
        ),
        (
            "forbid=retries=0",
            "forbid=retries=0 partition=a",
            ["partition=a: differs from mpsr.yaml: itself alone here"],
        ),
    ],
)
def test_a_spoilt_plugstack_is_named(site: Site, old: str, new: str, parts: list[str]) -> None:
    site.change("plugstack.conf.d/mpsr.conf", old, new)
    said = errors(site.plugstack())
    for part in parts:
        assert part in said


def test_required_is_warned_of_and_a_second_line_refused(site: Site) -> None:
    site.change("plugstack.conf.d/mpsr.conf", "\noptional", "\nrequired")
    assert any(finding.level is Severity.WARNING and "drains" in finding.text for finding in site.plugstack())
    line = (site.conf / "plugstack.conf.d/mpsr.conf").read_text()
    (site.conf / "plugstack.conf.d/other.conf").write_text(line)
    assert "loads mpsr.so 2 times" in errors(site.plugstack())


def test_a_bad_mpsr_yaml_is_the_error_and_the_rest_goes_on(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.conf / "mpsr.yaml").write_text("recovery: {mod: act}\n")
    arguments = ["check", "--config", f"{site.conf}/mpsr.yaml", "--slurm-conf", f"{site.conf}/slurm.conf"]
    assert main(arguments) == 2
    out = capsys.readouterr().out
    assert "unknown key: recovery.mod" in out
    assert "did you mean recovery.mode?" in out
    assert "PrologFlags: Alloc" in out


def test_what_the_node_lacks_is_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    opt = site.conf.parent / "opt"
    (opt / "mpsr-launch").unlink()
    (opt / "mps-control").chmod(0o644)
    assert main(["check", "--config", f"{site.conf}/mpsr.yaml", "-q", "--slurm-conf", f"{site.conf}/slurm.conf"]) == 2
    out = capsys.readouterr().out
    assert re.search(r"^error   paths\.launcher: is not there: ", out, re.MULTILINE)
    assert re.search(r"^warning paths\.mps_control: cannot be executed: ", out, re.MULTILINE)
    assert "ok  " not in out


@pytest.mark.skipif(os.geteuid() != 0, reason="root's directories are good")
@pytest.mark.parametrize("key", ["metrics", "job_mapping"])
def test_a_directory_for_metrics_must_be_there_and_roots(
    key: str, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = site.conf.parent / "textfile"

    def said() -> str:
        main(["check", "--config", str(site.conf / "mpsr.yaml"), "--slurm-conf", str(site.conf / "slurm.conf")])
        return "".join(line for line in capsys.readouterr().out.splitlines(True) if str(directory) in line)

    assert said() == ""
    site.change("mpsr.yaml", f'{key}: ""', f'{key}: "{directory}"')
    assert f"paths.{key}: no such file or directory: {directory}" in said()
    assert f"install -d -m 755 {directory}" in said()
    directory.mkdir()
    assert "ok" in said()
    directory.chmod(0o777)
    assert "can be written by others" in said()
    directory.rmdir()
    directory.write_text("")
    assert f"is no directory: {directory}" in said()


@given(st.text(max_size=300))
def test_any_text_is_read_as_lines(text: str) -> None:
    assert all(line == line.strip() and line for line in slurm_conf.logical_lines(text))


def test_comments_and_continued_lines_are_read_as_slurm_does() -> None:
    text = "A=1 # b\n#C=2\n\nLong=x,\\\n  y\nlast \\"
    assert list(slurm_conf.logical_lines(text)) == ["A=1", "Long=x,  y", "last"]


@pytest.mark.parametrize(
    ("kind", "mib", "level", "words"),
    [
        ("job_container/tmpfs", 64, Severity.WARNING, "prolog.room_mib: 0 in mpsr.yaml"),
        ("namespace/linux,Job_Container/tmpfs", 1, Severity.WARNING, "a job mounts of its own"),
        ("job_container/tmpfs", 0, Severity.FINE, "prolog.room_mib is 0"),
    ],
)
def test_jobs_with_mounts_of_their_own_want_no_rooms(
    site: Site, kind: str, mib: int, level: Severity, words: str
) -> None:
    site.change("slurm.conf", "ClusterName=t\n", f"ClusterName=t\nJobContainerType={kind}\n")
    path = str(site.conf / "slurm.conf")
    (finding,) = slurm_conf.rooms(path, slurm_conf.read(path), mib)
    assert finding.level is level
    assert words in finding.lines()


def test_other_sites_hear_nothing_of_rooms(site: Site) -> None:
    path = str(site.conf / "slurm.conf")
    assert slurm_conf.rooms(path, slurm_conf.read(path), 64) == []
