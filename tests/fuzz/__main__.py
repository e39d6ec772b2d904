"""Fuzz every parser of foreign bytes: `python -m tests.fuzz [--seconds N] [--only NAME ...] [--at-once N]`, or make fuzz.

Each target runs for so long, C under libFuzzer with AddressSanitizer and UBSan, Python under atheris. New inputs grow in
build/fuzz/corpus; what breaks a parser lies in build/fuzz/finds. Ends with 0 only if nothing broke; build/fuzz/fuzz.json
has the figures.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.fuzz import build
from tests.fuzz.targets import CORPUS, FOUND, PYTHON

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build/fuzz"
_RUNS = re.compile(r"stat::number_of_executed_units: +(\d+)")
_COVERED = re.compile(r"cov: (\d+) ft: (\d+)")
_HANG = 25
"""Seconds that one input may take: the slowest takes milliseconds."""
_MEMORY = 2048
"""MiB of one fuzzer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    target: str
    seconds: int
    runs: int
    covered: int
    """Edges of the code, as libFuzzer counts them."""
    finds: list[str]
    status: int


def fuzz(name: str, seconds: int) -> Ran:
    grown, finds, log = OUT / "corpus" / name, OUT / "finds" / name, OUT / "logs" / f"{name}.log"
    for directory in (grown, finds, log.parent):
        directory.mkdir(parents=True, exist_ok=True)
    program = [str(build.fuzzer(name))] if name in build.TARGETS else [sys.executable, "-m", "tests.fuzz.python", name]
    seeds = [str(folder / name) for folder in (CORPUS, FOUND) if (folder / name).is_dir()]
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={finds}/", f"-timeout={_HANG}"]
    options += [f"-rss_limit_mb={_MEMORY}", "-print_final_stats=1", "-max_len=16384"]
    options.append(f"-dict={Path(__file__).parent / 'words.dict'}")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{OUT / 'atheris'}", "ASAN_OPTIONS": "detect_leaks=0"}
    before = set(finds.iterdir())
    with log.open("wb") as file:
        done = subprocess.run(
            [*program, str(grown), *seeds, *options], cwd=ROOT, env=environment, stdout=file, stderr=file, check=False
        )
    said = log.read_text(errors="replace")
    runs, covered = _RUNS.search(said), _COVERED.findall(said)
    new = sorted(str(path.relative_to(ROOT)) for path in set(finds.iterdir()) - before)
    return Ran(
        target=name,
        seconds=seconds,
        runs=int(runs[1]) if runs else 0,
        covered=int(covered[-1][0]) if covered else 0,
        finds=new,
        status=done.returncode,
    )


def main() -> int:
    every = [*build.TARGETS, *PYTHON]
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--seconds", type=int, default=600, help="time for each target (default: 600)")
    parser.add_argument("--only", nargs="+", choices=every, default=every, metavar="NAME", help="these targets")
    parser.add_argument("--at-once", type=int, default=len(os.sched_getaffinity(0)), help="targets that run at once")
    chosen = parser.parse_args()
    ran: list[Ran] = []
    with ThreadPoolExecutor(chosen.at_once) as pool:
        for one in pool.map(lambda name: fuzz(name, chosen.seconds), chosen.only):
            ran.append(one)
            end = "no finds" if one.status == 0 and not one.finds else f"BROKEN (build/fuzz/logs/{one.target}.log)"
            print(f"fuzz: {one.target}: {one.runs} inputs in {one.seconds} s, {one.covered} edges, {end}", flush=True)
            for find in one.finds:
                print(f"fuzz:   {find}", flush=True)
    (OUT / "fuzz.json").write_text(json.dumps([asdict(one) for one in ran], indent=1) + "\n")
    return int(any(one.status or one.finds for one in ran))


if __name__ == "__main__":
    sys.exit(main())
