"""`feature`, `memacct` and `context-share` of protocol 3: how they are set is kept and shown, what they do is not simulated."""

from __future__ import annotations

import os

import pytest

from tests.gpusim.mps_harness import Mps
from tests.gpusim.mps_v3_harness import say

BOTH = ["memacct,enabled (default),memacct,-", "context-share,enabled (default),context-share,-"]
CSV = "--format=csv,noheader"


def test_features_are_enabled_until_somebody_disables_them(v3: Mps) -> None:
    assert say(v3, "feature", "describe", CSV) == BOTH
    assert say(v3, "feature", "disable", "memacct") == []
    assert say(v3, "feature", "describe", CSV) == ["memacct,disabled,memacct,-", BOTH[1]]
    assert say(v3, "feature", "describe", "memacct", CSV) == ["memacct,disabled,memacct,-"]
    assert say(v3, "feature", "enable", "memacct") == []
    assert say(v3, "feature", "disable", "context-share") == []
    assert say(v3, "feature", "describe", CSV) == [BOTH[0], "context-share,disabled,context-share,-"]


def test_features_are_described_as_a_table_or_as_csv(v3: Mps) -> None:
    heading, *rows = say(v3, "feature", "describe")
    assert heading.split() == ["FEATURE", "STATE", "MODULE", "COVERS"]
    assert [row.split() for row in rows] == [
        ["memacct", "enabled", "(default)", "memacct", "-"],
        ["context-share", "enabled", "(default)", "context-share", "-"],
    ]
    assert say(v3, "feature", "describe", "--format=table,noheader") == rows
    assert say(v3, "feature", "describe", "--format=csv") == ["FEATURE,STATE,MODULE,COVERS", *BOTH]


def test_the_audit_log_is_off_until_somebody_wants_it(v3: Mps) -> None:
    assert say(v3, "memacct", "describe", CSV) == ["audit_log,false"]
    assert say(v3, "memacct", "set", "audit_log=true") == []
    assert [line.split() for line in say(v3, "memacct", "describe")] == [["KEY", "VALUE"], ["audit_log", "true"]]
    assert say(v3, "memacct", "set", "--audit_log=false") == []
    assert say(v3, "memacct", "describe", CSV) == ["audit_log,false"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["feature", "disable"], "A feature name is required"),
        (["feature", "disable", "colour"], "Unknown feature colour"),
        (["feature", "enable", "server"], "Unknown feature server"),
        (["feature", "describe", "colour"], "Unknown feature colour"),
        (["feature", "disable", "memacct", "context-share"], "Too many arguments: context-share"),
        (["feature", "disable", "memacct", "--force"], "Unknown option force"),
        (["feature", "describe", "--format=toml"], "Invalid format toml"),
        (["feature", "list"], 'Unknown command "feature list"'),
        (["feature"], 'Unknown command "feature"'),
        (["memacct", "set"], "A setting is required: audit_log="),
        (["memacct", "set", "audit_log=on"], "Invalid value on, expected true or false"),
        (["memacct", "set", "audit-log=true"], "Unknown option audit-log"),
        (["memacct", "set", "audit_log"], "Too many arguments: audit_log"),
        (["memacct", "enable"], 'Unknown command "memacct enable"'),
        (["context-share", "describe"], 'Unknown command "context-share describe"'),
        (["context-share", "set", "default_socket=on"], 'Unknown command "context-share set default_socket=on"'),
        (["context-share"], 'Unknown command "context-share"'),
    ],
)
def test_what_is_not_documented_is_refused_and_changes_nothing(v3: Mps, words: list[str], answer: str) -> None:
    assert say(v3, *words) == [answer]
    assert say(v3, "feature", "describe", CSV) == BOTH
    assert say(v3, "memacct", "describe", CSV) == ["audit_log,false"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_only_root_and_the_daemons_user_change_what_holds_for_all(v3: Mps) -> None:
    for words in (["feature", "disable", "memacct"], ["memacct", "set", "audit_log=true"]):
        assert say(v3, *words, user=64001) == ["Insufficient privileges for UID 64001"]
    assert say(v3, "feature", "describe", CSV, user=64001) == BOTH
    assert say(v3, "memacct", "describe", CSV) == ["audit_log,false"]
