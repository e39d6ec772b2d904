"""Lists and ranges of names and numbers: what Slurm 22.05's `scontrol show hostnames` makes of them, and what is refused."""

import shutil
import subprocess
from pathlib import Path

import pytest

from resilience.model.errors import ConfigError
from resilience.parse.hostlist import MOST, expand, named, numbers

_LISTS = {
    "n7": "n7",
    "n[08-10,3]": "n08 n09 n10 n3",
    "rack[0-1]_blade[0-2]": "rack0_blade0 rack0_blade1 rack0_blade2 rack1_blade0 rack1_blade1 rack1_blade2",
    "r[1,0]_b[0-1]": "r1_b0 r1_b1 r0_b0 r0_b1",
    "n[98-101]": "n98 n99 n100 n101",
    "n[08-101,1]": " ".join(f"n{number:02d}" for number in range(8, 102)) + " n1",
    "n[1-010]": " ".join(f"n{number}" for number in range(1, 11)),
    "n[3,1,1]": "n3 n1 n1",
    "n[1-2][3-4]": "n13 n14 n23 n24",
    "a,b[1-2],c.d": "a b1 b2 c.d",
}


@pytest.mark.parametrize(("text", "words"), _LISTS.items(), ids=list(_LISTS))
def test_a_list_stands_for_what_slurm_makes_of_it(text: str, words: str) -> None:
    assert expand(text, "w") == words.split()


@pytest.mark.skipif(shutil.which("scontrol") is None, reason="no scontrol")
@pytest.mark.parametrize("text", _LISTS)
def test_scontrol_agrees(text: str, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=x\nSlurmctldHost=localhost\nNodeName=n\n")
    shown = subprocess.run(
        ["scontrol", "show", "hostnames", text],
        env={"SLURM_CONF": str(conf), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == expand(text, "w")


def test_text_may_follow_the_last_bracket() -> None:
    assert expand("n[0-1]x[01-02]y", "w") == ["n0x01y", "n0x02y", "n1x01y", "n1x02y"]


@pytest.mark.parametrize(
    "text",
    ["", "a,", ",a", "a,,b", "n[", "n]", "n[]", "n[1-]", "n[-1]", "n[1--2]", "n[3-1]", "n[a-b]", "n[0-3/2]", "n[1,]",
     "n[[1]]", "@group", "a b", "a!b", "a&b", "n[0-9999999]", "n[0-999]m[0-999]", "n[1-99999999999]", "n\n", "n[1\n]"],
)  # fmt: skip
def test_what_is_no_list_of_slurms_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="w: "):
        expand(text, "w")


def test_a_list_as_long_as_it_may_be() -> None:
    assert len(expand(f"n[0-{MOST // 10 - 1}]m[0-9]", "w")) == MOST


def test_a_name_is_found_in_a_list_and_not_in_what_is_none() -> None:
    assert named("rack1_blade07", "login,rack[0-3]_blade[00-15]")
    assert not named("rack1_blade7", "login,rack[0-3]_blade[00-15]")
    assert not named("n", "")
    assert not named("n", "n[")


def test_numbers_leave_out_what_is_none() -> None:
    assert numbers("75,80-82, 007,75") == ("75", "80", "81", "82", "7")
    assert numbers("3-1,x,1-,-1,0-99999,") == ()
