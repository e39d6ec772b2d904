"""The C parsers (ASan, UBSan) against the Python ones: same table of samples, same answers to made-up input."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.contract import contract
from resilience.model.errors import ConfigError, WireError
from resilience.model.ids import GpuMinor
from resilience.parse import job_script, options, packet
from resilience.parse import lease as lease_text
from tests.spank.conftest import Oracle
from tests.spank.node import lease
from tests.unit.test_options import changed, option

TABLE = json.loads((Path(__file__).resolve().parents[1] / "data/packets.json").read_text(encoding="utf-8"))
OPTIONS = json.loads((Path(__file__).resolve().parents[1] / "data/options.json").read_text(encoding="utf-8"))
LEASES = json.loads((Path(__file__).resolve().parents[1] / "data/leases.json").read_text(encoding="utf-8"))
SCRIPTS = json.loads((Path(__file__).resolve().parents[1] / "data/scripts.json").read_text(encoding="utf-8"))
KEYS = [spec["key"] for spec in contract()["option"].values()]
quick = settings(max_examples=150)


def unhex(text: str) -> str:
    return bytes.fromhex(text).decode("utf-8")


def c_words(oracle: Oracle, packet: bytes) -> tuple[str, dict[str, str]] | None:
    answer = oracle.ask("words", packet)
    if answer[0] != "ok":
        return None
    return answer[1], dict(zip(answer[2::2], map(unhex, answer[3::2]), strict=True))


def python_words(data: bytes) -> tuple[str, dict[str, str]] | None:
    try:
        return packet.unpack(data)
    except WireError:
        return None


@pytest.mark.parametrize("sample", TABLE["good"], ids=lambda sample: sample["packet"][:30])
def test_good_samples(oracle: Oracle, sample: dict[str, object]) -> None:
    assert c_words(oracle, str(sample["packet"]).encode()) == (sample["verb"], sample["values"])


@pytest.mark.parametrize("packet", [*TABLE["bad"], *TABLE["nul"]], ids=repr)
def test_bad_samples(oracle: Oracle, packet: str) -> None:
    assert c_words(oracle, packet.encode()) is None


def test_length_limit(oracle: Oracle) -> None:
    longest = b"log line=" + b"x" * (packet.MAX_BYTES - 9)
    assert c_words(oracle, longest) == python_words(longest)
    assert c_words(oracle, longest + b"x") is None
    assert oracle.ask("pack", b"x" * (packet.MAX_BYTES - 9))[0] == "ok"
    assert oracle.ask("pack", b"x" * (packet.MAX_BYTES - 8))[0] == "no"


pieces = st.sampled_from([*"a b log = %20 %C3%BC %ff %0 % 1 _ / ; x=1 k= é \t".split(" "), " "])


@quick
@given(st.one_of(st.binary(max_size=60), st.lists(pieces, max_size=12).map(lambda some: "".join(some).encode())))
def test_any_packet(oracle: Oracle, packet: bytes) -> None:
    expected = python_words(packet)
    if expected is not None and any("\0" in value for value in expected[1].values()):
        expected = None  # a NUL ends a C string: refused there
    assert c_words(oracle, packet) == expected


@quick
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200))
def test_packets_of_both(oracle: Oracle, value: str) -> None:
    answer = oracle.ask("pack", value.encode())
    assert answer[0] == "ok"
    assert unhex(answer[1]).encode() == packet.pack("log", line=value)


def c_options(oracle: Oracle, text: str) -> str | None:
    answer = oracle.ask("options", text.encode())
    return answer[1] if answer[0] == "ok" else None


def python_options(text: str) -> str | None:
    try:
        return options.serialize(options.parse(text))
    except ConfigError:
        return None


values = st.one_of(
    st.sampled_from(
        "on off job user shared world standby,restore restore,standby relaunch,relaunch requeue fail quarantine mps 4g "
        "512m 1t 1024t 0 1 100 101 007 0007 00007 99999 1099511627775 1099511627776 99999999999999999999 4gb -1 "
        "1.5 ,".split()
    ),
    st.text("0123456789gmt.,-", max_size=20),
    st.just(""),
)
pairs = st.tuples(st.sampled_from([*KEYS, "nokey"]), values).map("=".join)


@quick
@given(st.one_of(st.lists(pairs, max_size=6).map(";".join), st.text(contract()["wire"]["charset"], max_size=40)))
def test_any_option_string(oracle: Oracle, text: str) -> None:
    assert c_options(oracle, text) == python_options(text)


@quick
@given(st.binary(max_size=600))
def test_any_bytes_as_options(oracle: Oracle, raw: bytes) -> None:
    text = raw.split(b"\0")[0].decode("latin-1")
    answer = oracle.ask("options", text.encode("latin-1"))
    assert (answer[1] if answer[0] == "ok" else None) == python_options(text)


def c_lease(oracle: Oracle, text: str) -> tuple[object, ...] | None:
    answer = oracle.ask("lease", text.encode())
    if answer[0] != "ok":
        return None
    gpus = tuple((int(minor), unhex(uuid)) for minor, uuid in zip(answer[17::2], answer[18::2], strict=True))
    pairs = (pair.split(":") for pair in answer[5].removesuffix(".").split(",") if pair)
    slots = tuple((int(minor), int(slot)) for minor, slot in pairs)
    numbers = tuple(map(int, filter(None, answer[6].removesuffix(".").split(","))))
    return (int(answer[1]), int(answer[2]), answer[3] == "1", slots, numbers, *map(unhex, answer[7:17]), gpus)


def python_lease(text: str) -> tuple[object, ...]:
    it = lease_text.parse(text)
    texts = [it.reason, it.node, it.domain, it.isolation, ",".join(it.colors), it.run, it.agent, it.python, it.spill]
    texts.append(it.partition)
    return (it.job, it.uid, it.state == "open", it.slots, it.numbers, *(str(text) for text in texts), it.gpus)


SLOTS = ((GpuMinor(0), 2), (GpuMinor(3), 1))
GOOD = lease_text.render(lease(Path("/run/mpsr"), spill="/home/jürgen/a b", reason="100 % full", slots=SLOTS))


def test_a_lease(oracle: Oracle) -> None:
    assert c_lease(oracle, GOOD) == python_lease(GOOD)
    assert c_lease(oracle, "# comment\n" + GOOD + "later=1\n") == python_lease(GOOD)


def test_slurms_numbers_of_the_gpus(oracle: Oracle) -> None:
    for numbers in ((1, 0), (4095, 7)):
        text = lease_text.render(lease(Path("/run/mpsr"), numbers=numbers))
        assert c_lease(oracle, text) == python_lease(text)
    assert c_lease(oracle, changed(GOOD, "numbers=1")) is None, "of one of two GPUs"


def test_a_lease_with_paths_as_long_as_the_kernel_takes_them(oracle: Oracle) -> None:
    path = "/" + "ü" * 2047
    text = lease_text.render(lease(Path(path), spill=path, python=path, reason="x" * 1000, slots=SLOTS))
    assert c_lease(oracle, text) is None  # the agent's socket below such a run directory is too long
    text = lease_text.render(lease(Path("/run/mpsr"), spill=path, python=path, reason=path, slots=SLOTS))
    assert c_lease(oracle, text) == python_lease(text)


@pytest.mark.parametrize("line", GOOD.splitlines())
def test_a_lease_that_lacks_a_key_or_has_it_twice(oracle: Oracle, line: str) -> None:
    lacking = GOOD.replace(line + "\n", "")
    older = python_lease(lacking) if line.startswith(("partition=", "numbers=")) else None
    assert c_lease(oracle, lacking) == older
    assert c_lease(oracle, GOOD + line + "\n") is None


@pytest.mark.parametrize("change", LEASES["good"])
def test_a_lease_with_a_good_value(oracle: Oracle, change: str) -> None:
    assert c_lease(oracle, changed(GOOD, change)) == python_lease(changed(GOOD, change))


@pytest.mark.parametrize("change", [*LEASES["bad"], "run=" + "x" * 4096])
def test_a_lease_with_a_bad_value(oracle: Oracle, change: str) -> None:
    assert c_lease(oracle, changed(GOOD, change)) is None


@quick
@given(st.integers(0, len(GOOD) - 1), st.text("a0=%\n#;,:", max_size=4), st.integers(0, 6))
def test_whatever_c_takes_python_takes_alike(oracle: Oracle, at: int, put: str, cut: int) -> None:
    text = GOOD[:at] + put + GOOD[at + cut :]
    got = c_lease(oracle, text)
    if got is not None:
        assert got == python_lease(text)


@pytest.mark.parametrize(
    ("cuda", "step", "seen"),
    [
        ("-", "-", "a,b,c"),  # --gpu-bind=none
        ("", "-", "a,b,c"),
        ("NoDevFiles", "-", "a,b,c"),
        ("4,6", "4,6", "a,c"),  # the node's numbers, as without ConstrainDevices
        ("0,1", "4,6", "a,c"),  # those of what the task may open, as with it
        ("0", "6", "c"),
        ("6,4", "6,4", "c,a"),
        ("1", "4,6", "c"),  # a program chose among its own
        ("GPU-c,GPU-a", "-", "c,a"),
        ("GPU-b", "4,5,6", "b"),
        ("GPU-x", "5", "b"),
        ("0,2", "-", "a,c"),  # of a batch script: places at its server
        ("5,6", "-", "b,c"),
        ("4,4", "4,4", "a"),
        ("7", "7", "a,b,c"),  # none of the job's
        ("1,", "-", "a,b,c"),
    ],
)
def test_which_gpus(oracle: Oracle, cuda: str, step: str, seen: str) -> None:
    """GPUs a, b and c are Slurm's 4, 5 and 6."""
    held = "4:GPU-a,5:GPU-b,6:GPU-c"
    names = [f"GPU-{name}" for name in seen.split(",")]
    places = [str(place) for place in range(len(names))]
    limits = ",".join(f"{place}=512M" for place in places)
    answer = oracle.ask("gpus", f"{held};job;1;{cuda};{step}".encode())
    assert answer == ["ok", str(len(names)), ",".join(names), ",".join(places), limits]
    alone = oracle.ask("gpus", f"{held};gpu;1;{cuda};{step}".encode())
    assert alone == ["ok", str(len(names)), names[1 % len(names)], "0", "0=512M"]


def in_force(oracle: Oracle, arguments: str, asked: str, partition: str | None = None) -> dict[str, str] | str:
    entered = "" if partition is None else f"|{partition}"
    answer = oracle.ask("site", f"{arguments}|{asked}{entered}".encode())
    if answer[0] != "ok":
        return " ".join(answer[1:])
    return dict(pair.split("=", 1) for pair in answer[1].split(";"))


@pytest.mark.parametrize(
    ("arguments", "asked", "expected"),
    [
        ("", "", {"mps": "off", "domain": "user"}),
        ("", "mps", {"mps": "on"}),
        ("", "mps=(null)", {"mps": "on"}),
        ("", "threads=25", {"mps": "on", "threads": "25"}),
        ("", "threads=25 mps=off", {"mps": "off"}),
        ("", "mps=off threads=25", {"mps": "off"}),
        ("", "threads=env:25", {"mps": "off", "threads": "25"}),
        ("", "threads=env:25 threads=50", {"mps": "on", "threads": "50"}),
        ("", "threads=50 threads=env:25", {"threads": "50"}),
        ("", "mps=env:off threads=50", {"mps": "on"}),
        ("default.mps=on", "", {"mps": "on"}),
        ("default.mps=on", "mps=off", {"mps": "off"}),
        ("default.threads=10", "", {"mps": "off", "threads": "10"}),
        ("default.threads=10", "mps threads=env:20", {"threads": "20"}),
        ("default.threads=10", "threads=", {"threads": ""}),
        ("default.memory=4G", "mps", {"memory": "4096"}),
        ("", "memory=1500K", {"memory": "2"}),
        ("", "memory=1024K", {"memory": "1"}),
        ("", "recover=requeue,standby", {"recover": "standby,requeue"}),
        ("lock=domain", "domain=user", {"domain": "user"}),
        ("default.domain=job lock=domain,threads", "mps", {"domain": "job"}),
        # at submission the partition is not known: what one of them takes is taken
        ("lock=domain partition=a lock=", "domain=job", {"domain": "job"}),
        ("partition=a default.mps=on default.domain=job", "", {"mps": "off", "domain": "user"}),
        ("forbid=domain=shared partition=a forbid=", "domain=shared", {"domain": "shared"}),
    ],
)
def test_layers(oracle: Oracle, arguments: str, asked: str, expected: dict[str, str]) -> None:
    got = in_force(oracle, arguments, asked)
    assert isinstance(got, dict)
    assert expected.items() <= got.items()


@pytest.mark.parametrize(
    ("arguments", "asked", "line"),
    [
        ("lock=domain", "domain=job", "mpsr: --mps-domain: fixed by the administrator at user: job"),
        ("lock=threads", "threads=env:9", "mpsr: MPSR_THREADS: fixed by the administrator at no limit: 9"),
        ("forbid=domain=shared", "domain=shared",
         "mpsr: --mps-domain: shared is forbidden by the administrator: shared"),
        ("forbid=on-culprit=requeue forbid=domain=shared", "on-culprit=requeue",
         "mpsr: --mps-on-culprit: requeue is forbidden by the administrator: requeue"),
        ("default.recover=restore forbid=recover=requeue", "recover=restore,requeue",
         "mpsr: --mps-recover: requeue is forbidden by the administrator: restore,requeue"),
        ("lock=mps", "threads=9", "mpsr: --mps-threads: fixed by the administrator at off: 9"),
        ("lock=domain partition=a lock=domain default.domain=shared", "domain=job",
         "mpsr: --mps-domain: fixed by the administrator at user: job"),
        ("forbid=domain=shared partition=a lock=threads", "domain=shared",
         "mpsr: --mps-domain: shared is forbidden by the administrator: shared"),
        ("", "retries=101", "mpsr: --mps-retries: not a number from 0 to 100: 101"),
        # the administrator's own mistakes
        ("lock=dmain", "", "unknown key: lock=dmain"),
        ("defaults.domain=job", "", "unknown argument: defaults.domain=job"),
        ("default.dmain=job", "", "unknown key: default.dmain=job"),
        ("default.domain=world", "", "not one of job,user,shared: default.domain=world"),
        ("forbid=domain", "", "unknown key: forbid=domain"),
        ("run=mpsr", "", "not an absolute path: run=mpsr"),
        ("forbid=domain=user", "", "forbidden, but the default (set default.domain): domain=user"),
        ("partition=a forbid=domain=user", "", "a: forbidden, but the default (set default.domain): domain=user"),
        ("partition=a partition=a", "", "not a new partition's name: partition=a"),
        ("partition=a;b", "", "not a new partition's name: partition=a;b"),
        ("partition=", "", "not a new partition's name: partition="),
        (" ".join(f"partition=p{row}" for row in range(33)), "", "more than 32 partitions: partition=p32"),
    ],
)  # fmt: skip
def test_refusals(oracle: Oracle, arguments: str, asked: str, line: str) -> None:
    assert in_force(oracle, arguments, asked) == line


@pytest.mark.parametrize(("key", "text", "canonical"), OPTIONS["good"])
def test_a_good_value_in_canonical_form(oracle: Oracle, key: str, text: str, canonical: str) -> None:
    got = in_force(oracle, "", f"{key}={text}")
    assert isinstance(got, dict)
    assert got[key] == canonical


@pytest.mark.parametrize(("key", "text"), OPTIONS["bad"])
def test_a_bad_value(oracle: Oracle, key: str, text: str) -> None:
    answer = oracle.ask("options", f"{key}={text}".encode())
    assert answer[0] == "no"


def plugstack(row: dict[str, Any]) -> list[str]:
    """What a site, or a partition, says of its own, as `mpsr render` writes it."""
    words = [f"default.{key}={value}" for key, value in row.get("defaults", {}).items()]
    words += [f"lock={','.join(row['locked'])}"] if "locked" in row else []
    return words + [f"forbid={pair}" for pair in (row["forbidden"] or [""] if "forbidden" in row else [])]


@pytest.mark.parametrize("row", OPTIONS["sites"], ids=lambda row: f"{row['asked']} {row.get('forbidden', '')}")
def test_what_a_site_allows(oracle: Oracle, row: dict[str, Any]) -> None:
    arguments = plugstack(row)
    for name, own in row.get("partitions", {}).items():
        arguments += [f"partition={name}", *plugstack(own)]
    got = in_force(oracle, " ".join(arguments), row["asked"], row.get("partition"))
    if "refused" in row:
        name, why = row["refused"]
        assert isinstance(got, str)
        assert got.startswith(f"mpsr: {option(name)}: {why}: ")
    else:
        assert isinstance(got, dict)
        assert row["holds"].items() <= got.items()


def test_the_table_of_verdicts_is_total(oracle: Oracle) -> None:
    answer = oracle.ask("table")
    cells = [tuple(map(int, cell.split(":"))) for cell in answer[1:]]
    assert len(cells) == 11 * 16
    # a cell that was forgotten is zero: it would lead back to PLACING, the first state
    assert not [cell for cell in cells if cell[0] and 0 in cell[3:]]


@pytest.mark.parametrize("row", SCRIPTS["scripts"], ids=lambda row: row["text"][12:40])
def test_a_batch_script(oracle: Oracle, row: dict[str, Any]) -> None:
    answer = oracle.ask("script", row["text"].encode())
    pairs = zip(answer[2::2], map(unhex, answer[3::2]), strict=True)
    assert [[key, None if text == "(null)" else text] for key, text in pairs] == row["options"]
    assert (answer[0], answer[1]) == ("ok", str(int(row["supervised"])))


@quick
@given(st.text("#SBATCH --mps-threads=srun\n\t /.x", max_size=120))
def test_any_batch_script(oracle: Oracle, text: str) -> None:
    answer = oracle.ask("script", text.encode())
    pairs = [list(pair) for pair in zip(answer[2::2], map(unhex, answer[3::2]), strict=True)]
    ours = [[asked.key, "(null)" if asked.value is None else asked.value] for asked in job_script.options(text)]
    assert (answer[1], pairs) == (str(int(job_script.supervised(text))), ours)
