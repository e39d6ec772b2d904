"""Commands over many nodes: ClusterShell, a shell in ssh's place, and the real command on each node's own files.

A node is not trusted: what some of them print here is meant to break the one who asks.
"""

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.cli.main import main
from resilience.contract import exit_code

ROOT = Path(__file__).resolve().parents[2]
JOURNAL = (ROOT / "tests/data/journal-0.1.0.jsonl").read_text(encoding="utf-8")
SSH = """#!/bin/sh
while case $1 in -*) true ;; *) false ;; esac; do shift; done
node=$1
shift
case $node in
dead*) echo "ssh: connect to host $node port 22: No route to host" >&2; exit 255 ;;
mute*) exec sleep 1000 ;;
deaf*) exec >&- 2>&-; exec sleep 1000 ;;
flood*) yes | tr -d '\\n'; exit ;;
lines*) exec yes '{"event": "x", "wall": 1}' ;;
loud*) printf 'x\\033[2Jy\\n' >&2; printf '{"node": '; exit 0 ;;
odd*) cat "$PLACE/odd.json"; exit 0 ;;
esac
export MPSR_CONFIG="$PLACE/$node.yaml"
exec sh -c "$*"
"""


class Cluster:
    """Node views below a directory: each with its own mpsr.yaml, run and log directories."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.fanout, self.timeout = 8, 100.0
        self.scontrol = "/nonexistent/scontrol"
        monkeypatch.setenv("PLACE", str(place))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        for name, text in {
            "ssh": SSH,
            "mpsr": f'#!/bin/sh\nexec {sys.executable} -m resilience.cli.main "$@"\n',
        }.items():
            (place / name).write_text(text)
            (place / name).chmod(0o755)

    def node(self, name: str, journal: str = "", more: str = "") -> None:
        for part in ("run", "log"):
            (self.place / name / part / name).mkdir(parents=True)
        if journal:
            (self.place / name / "log" / name / "journal.jsonl").write_text(journal, encoding="utf-8")
        paths = f"run: {self.place}/{name}/run, log: {self.place}/{name}/log, mps_control: /nonexistent/control"
        (self.place / f"{name}.yaml").write_text(f"paths: {{{paths}}}\n{more}")

    def run(self, *words: str) -> int:
        remote = f"ssh: {self.place}/ssh, command: {self.place}/mpsr, fanout: {self.fanout}, timeout: {self.timeout}"
        config = self.place / "here.yaml"
        config.write_text(f"paths: {{run: {self.place}/none, scontrol: {self.scontrol}}}\nremote: {{{remote}}}\n")
        return main([*words, "--config", str(config)])


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="on-", dir="/tmp") as place:  # short: a socket's path is to fit
        yield Cluster(Path(place), monkeypatch)


def test_nodes_that_have_the_same_to_tell_are_told_of_together(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("n1", "n2", "n3"):
        cluster.node(name)
    assert cluster.run("status", "--nodes", "n[1-3],dead[1-2]") == exit_code("no_answer")
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "node n[1-3]: the agent does not answer"
    assert said.err.splitlines() == [
        "mpsr: dead1: ssh: connect to host dead1 port 22: No route to host",
        "mpsr: dead2: ssh: connect to host dead2 port 22: No route to host",
    ]
    assert cluster.run("status", "--nodes", "n[1-3]") == exit_code("ok")
    capsys.readouterr()
    assert cluster.run("status", "--nodes", "n[1-2],dead1", "--json") == exit_code("no_answer")
    found = json.loads(capsys.readouterr().out)
    assert [found["nodes"][name]["node"] for name in ("n1", "n2")] == ["n1", "n2"]
    assert list(found["no_answer"]) == ["dead1"]


def test_a_node_that_does_not_end_costs_its_time_limit(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.timeout = 1
    assert cluster.run("status", "--nodes", "mute[1-3],deaf1") == exit_code("no_answer")
    said = capsys.readouterr().err
    assert "mpsr: mute[1-3]: no answer within 1 s" in said
    assert "mpsr: deaf1: answer: is not JSON: nothing" in said


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ("{}", "answer.node: is missing"),
        ("[" * 100_000, "answer: is not JSON"),
        ('{"node": 7}', "answer.node: is not a str: 7"),
        ('{"node": "x", "agent": 1}', "answer.agent: is not a bool: 1"),
        ("\x00\x1b]0;owned\x07", "answer: is not JSON"),
        ("9" * 100_000, "answer: is not JSON"),
        ('"text"', "answer: is not a NodeStatus"),
    ],
)
def test_what_is_no_answer_is_named(cluster: Cluster, capsys: pytest.CaptureFixture[str], odd: str, why: str) -> None:
    cluster.node("n1")
    (cluster.place / "odd.json").write_text(odd)
    assert cluster.run("status", "--nodes", "n1,odd1") == exit_code("no_answer")
    said = capsys.readouterr()
    assert said.out.startswith("node n1:")
    assert said.err.startswith(f"mpsr: odd1: {why}")
    assert said.err.replace("\n", "").isprintable()


def test_neither_a_flood_nor_control_characters_get_through(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.node(
        "n1", json.dumps({"event": "\x1b[2J", "wall": 10**400}) + "\n" + '{"event": "a\\u001b[2J", "wall": 5}\n'
    )
    assert cluster.run("log", "--nodes", "n1,flood1,lines1,loud1") == exit_code("no_answer")
    said = capsys.readouterr()
    assert said.out == "n1    1970-01-01T00:00:05.000Z a?[2J\n"
    assert "mpsr: flood1,lines1: said more than 32 MiB" in said.err
    assert said.err.replace("\n", "").isprintable()
    assert cluster.run("status", "--nodes", "loud1") == exit_code("no_answer")
    assert capsys.readouterr().err == "mpsr: loud1: x?[2Jy\n"


def test_the_same_finding_on_many_nodes_is_one(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("n1", "n2"):
        cluster.node(name)
    cluster.node("n3", more="recovery: {mod: act}\n")
    assert cluster.run("check", "-q", "--nodes", "n[1-3]") == exit_code("usage")
    said = capsys.readouterr().out
    assert re.search(rf"^error   n3: {cluster.place}/n3\.yaml: unknown key: recovery\.mod$", said, re.MULTILINE)
    assert re.search(r"^warning n\[1-2\]: paths\.mps_control: is not there: /nonexistent/control$", said, re.MULTILINE)
    assert cluster.run("check", "--json", "--nodes", "n[1-3],dead1") == exit_code("no_answer")
    found = json.loads(capsys.readouterr().out)
    assert any(one["nodes"] == "n[1-2]" for one in found["findings"])
    assert list(found["no_answer"]) == ["dead1"]


def test_journals_come_in_the_order_of_time(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    for name, times in {"n1": (1, 3), "n2": (2, 4)}.items():
        cluster.node(name, "".join(f'{{"event": "x", "wall": {second}}}\n' for second in times))
    assert cluster.run("log", "--nodes", "n[1-2]") == exit_code("ok")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["n1", "n2", "n1", "n2"]
    assert cluster.run("log", "--json", "--nodes", "n[1-2]") == exit_code("ok")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["node"], row["wall"]) for row in rows] == [("n1", 1), ("n2", 2), ("n1", 3), ("n2", 4)]


def test_a_story_and_a_report_are_those_of_the_nodes_own(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.node("n1", JOURNAL)
    cluster.node("n2", '{"event": "job.opened", "wall": 5, "job": 12}\n')
    journal = str(cluster.place / "n1/log/n1/journal.jsonl")
    incidents = sorted({json.loads(line).get("incident", "") for line in JOURNAL.splitlines()} - {""})
    for what in (incidents[0], "2"):
        assert cluster.run("explain", what, "--journal", journal) == exit_code("ok")
        alone = capsys.readouterr().out.splitlines()
        assert cluster.run("explain", what, "--nodes", "n[1-2]") == exit_code("ok")
        many = capsys.readouterr().out.splitlines()
        assert many[0].replace(" on n1,", ",") == alone[0]
        assert many[1:] == alone[1:]
    for words in ((incidents[0],), ("2",), ("--since", "2020-01-01T00:00:00+00:00")):
        pages = []
        for more in (("--journal", journal), ("--nodes", "n[1-2]")):
            assert cluster.run("report", *words, *more, "-o", "-") == exit_code("ok")
            pages.append(
                re.sub(
                    r"(?s)<p>From .*?</p>|<footer>.*?</footer>|\d{4}-\d\d-\d\dT[0-9:.]+Z", "", capsys.readouterr().out
                )
            )
        tables = [re.findall(r"(?s)<t[dr].*?</t[dr]>", page) for page in pages]
        assert tables[0] == tables[1]
        assert tables[0]
    assert cluster.run("explain", "none-1", "--nodes", "n[1-2]") == exit_code("failed")
    assert cluster.run("report", "2", "--nodes", "n1,dead1", "-o", "-") == exit_code("no_answer")
    assert "dead1 did not answer: ssh: connect to host dead1" in capsys.readouterr().out
    assert cluster.run("report", "2", "--nodes", "dead1", "-o", "-") == exit_code("no_answer")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--nodes", "n[1-"], "--nodes: has a bracket that is no range"),
        (["--nodes=-oProxyCommand"], "--nodes: is not a node's name: -oProxyCommand"),
        (["--nodes", "n1,n1"], "--nodes: names a node twice"),
        (["--nodes", "n1", "--node", "n2"], "--nodes: cannot be given with --node or --journal: n2"),
    ],
)
def test_what_is_no_list_of_nodes_is_refused(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    assert cluster.run("status", *words) == exit_code("usage")
    assert why in capsys.readouterr().err


def placed(cluster: Cluster, job: int, nodes: str) -> None:
    """A squeue that knows one job: fields of the widths that it is asked for, as print.c writes them."""
    script = f"""#!{sys.executable}
import re, sys
form = next(word for word in sys.argv if word.startswith("--Format="))
known = {{"JobID": "{job}", "ArrayJobID": "{job}", "ArrayTaskID": "N/A", "HetJobID": "N/A", "HetJobOffset": "N/A",
         "State": "COMPLETED", "NodeList": "{nodes}"}}
if not any(word == "--jobs={job}" for word in sys.argv):
    sys.exit("slurm_load_jobs error: Invalid job id specified")
print("".join(known[name].ljust(int(width)) for name, width in re.findall(r"(\\w+):(\\d+)", form)))
"""
    (cluster.place / "squeue").write_text(script)
    (cluster.place / "squeue").chmod(0o755)
    cluster.scontrol = f"{cluster.place}/scontrol"


def test_the_nodes_of_a_job_are_asked(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    placed(cluster, 2, "n[1-2]")
    cluster.node("n1", JOURNAL)
    cluster.node("n2")
    assert cluster.run("log", "--json", "-j", "2") == exit_code("no_answer")
    said = capsys.readouterr()
    assert {json.loads(line)["node"] for line in said.out.splitlines()} == {"n1"}
    assert said.err.startswith("mpsr: n2: ")
    incident = next(json.loads(line)["incident"] for line in JOURNAL.splitlines() if "incident" in json.loads(line))
    for what in ((incident, "-j", "2"), ("2",), ("-j", "2")):
        assert cluster.run("explain", *what) == exit_code("no_answer")
        assert " on n1, " in capsys.readouterr().out
        assert cluster.run("report", *what, "-o", "-") == exit_code("no_answer")
        title = f"Incident {incident}" if incident in what else "Job 2"
        assert re.search(rf"<title>[^<]*{title}\b", capsys.readouterr().out)
    assert cluster.run("check", "-q", "-j", "2") in (exit_code("ok"), exit_code("usage"))
    assert "n[1-2]: paths.mps_control" in capsys.readouterr().out
    assert cluster.run("check", "-j", "3") == exit_code("usage")
    assert "mpsr: job 3: Slurm does not say where it ran" in capsys.readouterr().err


def test_without_ssh_the_setting_is_named(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    (cluster.place / "ssh").unlink()
    assert cluster.run("status", "--nodes", "n1") == exit_code("usage")
    assert "remote.ssh in mpsr.yaml" in capsys.readouterr().err
