"""docs/how-to/inject-faults.md, followed to the letter: every line with `$` is run in one shell, every answer must be the page's."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.gpusim.driver_harness import ROOT

PAGE = ROOT / "docs" / "how-to" / "inject-faults.md"
HOST = "/dev/shm/inject-page"
MARK = "=== end of answer"
LIMIT = 60.0


def steps() -> list[tuple[str, str]]:
    """(what is typed, what is answered), in the page's order."""
    found: list[tuple[str, str]] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("    $ "):
            found.append((line[6:], ""))
        elif line.startswith("    ") and found:
            found[-1] = (found[-1][0], found[-1][1] + line[4:] + "\n")
    return found


@pytest.mark.timeout(LIMIT + 30)
def test_the_page_does_what_it_says() -> None:
    own = f"{HOST}-{os.getpid()}"  # tests run side by side
    script = "".join(f"{typed}\nprintf '%s\\n' '{MARK}'\n" for typed, _ in steps()).replace(HOST, own)
    done = subprocess.run(["bash"], input=script, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT)
    answers = done.stdout.split(f"{MARK}\n")[:-1]
    assert len(answers) == len(steps()), done.stderr
    for (typed, expected), got in zip(steps(), answers, strict=True):
        pattern = ".*".join(re.escape(part) for part in expected.split("…"))
        assert re.fullmatch(pattern, got), f"$ {typed}\nthe page: {expected}\nanswered: {got}\n{done.stderr}"
    assert not Path(own).exists()
