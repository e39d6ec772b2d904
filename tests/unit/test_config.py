"""mpsr.yaml: what is taken, and that each way of being wrong gives one error naming key, value and the way out."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from resilience.config import mpsr_yaml
from resilience.config import settings as cli_settings
from resilience.model.errors import ConfigError
from resilience.model.settings import PartitionRules, Settings


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        mpsr_yaml.parse(text, "mpsr.yaml")
    return caught.value.lines()


def test_an_empty_file_is_the_defaults() -> None:
    assert mpsr_yaml.parse("", "f") == Settings()
    assert mpsr_yaml.parse("recovery:\n", "f") == Settings()


def test_values_arrive_typed_and_options_canonical() -> None:
    text = (
        "recovery: {mode: observe, grace: 2}\noptions: {defaults: {mps: on, memory: 4G, threads: 25}, locked: [domain]}"
    )
    found = mpsr_yaml.parse(text, "f")
    assert found.recovery.mode == "observe"
    assert found.recovery.grace == 2.0
    assert found.options.defaults == {"mps": "on", "memory": "4096", "threads": "25"}
    assert found.options.locked == ("domain",)
    assert found.options.forbidden == ("domain=shared",)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("recovery: {mod: act}", ["unknown key: recovery.mod", "did you mean recovery.mode?"]),
        ("recovry: {mode: act}", ["unknown key: recovry", "did you mean recovery?"]),
        ("timeout: 3", ["unknown key: timeout", "timeout?"]),
        ("zzzzzz: 3", ["unknown key: zzzzzz", "known: paths, options"]),
        ("recovery: {mode: obsrve}", ["recovery.mode", "'obsrve'", "did you mean observe?"]),
        ("recovery: 5", ["recovery", "not a mapping", "5"]),
        ("recovery: {grace: soon}", ["recovery.grace: is not a number: 'soon'"]),
        ("recovery: {grace: yes}", ["recovery.grace: is not a number: True"]),
        ("recovery: {grace: -1}", ["recovery.grace: is not within 0 and 600: -1"]),
        ("recovery: {grace: .nan}", ["recovery.grace: is not a usable number"]),
        ("recovery: {settle_ms: 1.5}", ["recovery.settle_ms: is not a whole number: 1.5"]),
        ("slurm: {timeout: 0}", ["slurm.timeout: is not within 0.1 and 600: 0"]),
        ("paths: {run: run/mpsr}", ["paths.run: is not a usable path: 'run/mpsr'"]),
        ("paths: {run: '/run/m psr'}", ["paths.run: is not a usable path"]),
        ("paths: {run: '/run/../etc'}", ["paths.run: goes up with '..'"]),
        (f"paths: {{run: /{'r' * 60}}}", ["paths.run: is too long for a socket's path"]),
        ('paths: {log: "/l\\nPrologFlags=X"}', ["paths.log: has a character that cannot be printed"]),
        ("paths: {metrics: textfile}", ["paths.metrics: is not a usable path: 'textfile'"]),
        ("paths: {spill: '/s/../t'}", ["paths.spill: goes up with '..'"]),
        ("paths: {scontrol: 'scontrol -M x'}", ["paths.scontrol: is not a usable path"]),
        ("paths: {log: 7}", ["paths.log: is not a string: 7"]),
        ("options: {defaults: {domian: job}}", ["unknown option key: domian", "did you mean domain?"]),
        ("options: {defaults: {domain: usr}}", ["options.defaults.domain: bad value: 'usr'", "did you mean user?"]),
        ("options: {defaults: {threads: 101}}", ["options.defaults.threads: bad value: '101'", "give PCT"]),
        ("options: {locked: [retry]}", ["options.locked: unknown option key: retry", "did you mean retries?"]),
        ("options: {locked: domain}", ["options.locked: is not a list: 'domain'"]),
        ("options: {forbidden: [domain]}", ["options.forbidden: is not key=value: 'domain'"]),
        (
            "options: {forbidden: [domain=user]}",
            ["forbids what holds by default: domain=user", "options.defaults.domain"],
        ),
        ("options: {forbidden: [recover=requeue]}", ["forbids what holds by default: recover=requeue"]),
        (f"options: {{forbidden: {[f'retries={n}' for n in range(10, 50)]}}}", ["has more than 32 pairs: 40"]),
        ("options: {partitions: {'a b': {}}}", ["options.partitions.a b: is not a name"]),
        ("options: {partitions: {a: {locks: []}}}", ["unknown key: options.partitions.a.locks"]),
        ("options: {partitions: {a: {locked: [dmain]}}}", ["options.partitions.a.locked: unknown option key: dmain"]),
        ("options: {partitions: {a: {defaults: {domain: shared}}}}", ["forbids what holds by default: domain=shared"]),
        (
            f"options: {{partitions: {dict.fromkeys(map(str, range(33)))}}}".replace("None", "{}"),
            ["options.partitions: has more than 32 entries: 33"],
        ),
        ("recovery: {grace: 1, grace: 2}", ["mpsr.yaml:1: is not YAML: key given twice: grace"]),
        ("recovery: [", ["mpsr.yaml:1: is not YAML"]),
        ("- a\n- b", ["is not a mapping of keys to values"]),
        ("!!python/object/apply:os.system ['true']", ["is not YAML"]),
    ],
)
def test_what_is_wrong_is_named(text: str, parts: list[str]) -> None:
    message = refusal(text)
    for part in ["mpsr: mpsr.yaml", *parts]:
        assert part in message
    assert message.count("\n") <= 1


def test_a_partition_has_its_own_in_canonical_form() -> None:
    text = "options: {partitions: {a: {defaults: {mps: on, memory: 4G}, forbidden: []}, b: {locked: [mps, mps]}, c: }}"
    assert mpsr_yaml.parse(text, "f").options.partitions == {
        "a": PartitionRules(defaults={"mps": "on", "memory": "4096"}, forbidden=()),
        "b": PartitionRules(locked=("mps",)),
        "c": PartitionRules(),
    }


def test_a_forbidden_default_may_be_replaced() -> None:
    text = "options: {forbidden: [domain=user], defaults: {domain: job}}"
    assert mpsr_yaml.parse(text, "f").options.forbidden == ("domain=user",)


def test_a_word_of_a_list_may_be_forbidden() -> None:
    text = "options: {forbidden: [recover=requeue], defaults: {recover: 'standby,relaunch'}}"
    found = mpsr_yaml.parse(text, "f").options
    assert found.forbidden == ("recover=requeue",)


def test_every_number_has_a_range_and_every_range_a_number() -> None:
    settings = list(mpsr_yaml.leaves(Settings))
    numbers = {key for key, _, kind in settings if kind in (int, float)}
    assert numbers == {key for key, field, _ in settings if field.metadata["within"] is not None}


def test_every_default_is_accepted() -> None:
    assert mpsr_yaml.checked(Settings(), "defaults") == Settings()


def attempt(text: str) -> str:
    """What is said about a text; empty when it is taken."""
    try:
        mpsr_yaml.parse(text, "f")
    except ConfigError as error:
        return error.lines()
    return ""


@given(st.text(max_size=200))
def test_any_text_is_settings_or_one_clear_error(text: str) -> None:
    message = attempt(text)
    assert message == "" or message.startswith("mpsr: f")
    assert message.count("\n") <= 1


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))
KEYS = st.sampled_from([key for key, _, _ in mpsr_yaml.leaves(Settings)])


@given(KEYS, VALUES)
def test_any_value_of_any_key_is_taken_or_refused_by_name(key: str, value: object) -> None:
    section, name = key.split(".")
    message = attempt(yaml.safe_dump({section: {name: value}}))
    assert message == "" or key in message or "options" in message or "is not YAML" in message


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mpsr.yaml"
    path.write_text("recovery: {mode: observe}\n")
    path.chmod(0o644)
    yield path
    tmp_path.chmod(0o700)


def test_a_trusted_file_is_loaded(file: Path) -> None:
    assert mpsr_yaml.load(str(file)).recovery.mode == "observe"


def test_a_file_others_may_write_is_refused(file: Path) -> None:
    file.chmod(0o664)
    with pytest.raises(ConfigError, match=r"mpsr\.yaml: can be written by others: mode 0664"):
        mpsr_yaml.load(str(file))


def test_the_directory_at_fault_is_named(file: Path) -> None:
    file.parent.chmod(0o777)
    with pytest.raises(ConfigError) as caught:
        mpsr_yaml.load(str(file))
    assert caught.value.subject == str(file.parent)
    assert f"chmod go-w {file.parent}" in caught.value.lines()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(file: Path) -> None:
    os.chown(file, 65534, 65534)
    with pytest.raises(ConfigError, match="is not owned by root: uid 65534"):
        mpsr_yaml.load(str(file))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link's target away")
def test_a_link_is_judged_by_where_it_leads(file: Path, tmp_path: Path) -> None:
    os.chown(file, 65534, 65534)
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    with pytest.raises(ConfigError, match="is not owned by root"):
        mpsr_yaml.load(str(link))


def test_a_missing_or_binary_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        mpsr_yaml.load(str(tmp_path / "absent.yaml"))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        mpsr_yaml.load(str(binary))


def test_the_named_file_beats_the_environment_and_must_exist(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPSR_CONFIG", "/nonexistent/mpsr.yaml")
    found = cli_settings.find(str(file))
    assert (found.source, found.settings.recovery.mode) == (str(file), "observe")
    with pytest.raises(ConfigError, match=r"/nonexistent/mpsr\.yaml: cannot be read"):
        cli_settings.find()


def test_without_any_file_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPSR_CONFIG", raising=False)
    monkeypatch.setattr(cli_settings, "path", lambda _name: "/nonexistent/mpsr.yaml")
    found = cli_settings.find()
    assert (found.source, found.settings) == ("", Settings())
