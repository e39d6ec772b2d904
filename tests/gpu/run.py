"""The hardware run: every experiment in its own process with a time limit, under nine minutes in all.

    python3 -m tests.gpu.run --out DIR [--mps DIR] [--only NAME,NAME] [--small]

Needs only Python, the NVIDIA driver and, for what concerns MPS, `nvidia-cuda-mps-control` and `-server` on PATH or in `--mps DIR`. Writes
`results.json` (what was found, by experiment), `logs.txt` (the MPS logs and whatever went to stderr) and `hypotheses.json` (what that
says about the simulator's assumptions). An experiment that fails, hangs or crashes is a finding; the run goes on with the next. Never
changes a setting of the GPU.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.gpu import verdicts
from tests.gpu.experiments import LIMITS
from tests.gpu.stage import WITHOUT_MPS, end_leftovers, leftovers

ROOT = Path(__file__).parent.parent.parent
BUDGET_SECONDS = 530.0
STUCK_SECONDS = 3.0


def conduct(name: str, seconds: float, out: Path, small: bool) -> tuple[dict[str, Any], str]:
    """Findings and log text of one experiment, ended with everything it started when its time is over."""
    findings, log, stderr = (out / f"{name}.{part}" for part in ("found", "mps", "stderr"))
    folder = Path(tempfile.mkdtemp(prefix="hw", dir="/tmp"))
    begin = time.monotonic()
    with stderr.open("wb") as errors:
        argv = [sys.executable, "-m", "tests.gpu.one", name, str(findings), str(log), str(folder)]
        process = subprocess.Popen(
            argv + ["--small"] * small, cwd=ROOT, stdout=errors, stderr=errors, stdin=subprocess.DEVNULL, start_new_session=True
        )  # fmt: skip
        try:
            process.wait(seconds)
            how = f"ended with status {process.returncode}"
        except subprocess.TimeoutExpired:
            how = f"stopped after {seconds:.0f} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what a crashed experiment left in its group
    result: dict[str, Any] = {"how": how, "seconds": round(time.monotonic() - begin, 3)}
    texts = [log.read_text(errors="replace")] if log.exists() else []
    texts += [path.read_text(errors="replace") for path in sorted(folder.glob("*.log/*.log"))]
    result["ended_after_it"] = clear(process, folder)
    if findings.exists():
        result["found"] = json.loads(findings.read_text())
    texts.append(stderr.read_text(errors="replace"))
    for path in (findings, log, stderr):
        path.unlink(missing_ok=True)
    return result, "".join(f"##### {name}\n{text}\n" for text in texts if text)


def clear(process: subprocess.Popen[bytes], folder: Path) -> list[str]:
    """End what an experiment left, its MPS daemons above all: the next one begins on a GPU without them. What had to be ended.

    A process that the driver does not let go is waited for `STUCK_SECONDS` and then left: it must not take the others' time.
    """
    ended = end_leftovers(folder)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STUCK_SECONDS)
    end = time.monotonic() + STUCK_SECONDS
    while leftovers(folder) and time.monotonic() < end:
        time.sleep(0.02)
    ended += [f"{name} stays" for name in leftovers(folder).values()]
    shutil.rmtree(folder, ignore_errors=True)
    return ended


def no_mps(found: dict[str, Any]) -> str:
    """Why MPS cannot be used, from what `environment` found; empty where a server was ACTIVE, or nobody tried."""
    server = found.get("server", {"state": "ACTIVE"})
    return "" if server["state"] == "ACTIVE" else f"state {server['state']}, rc {server['rc']} {server['out']}".strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "build/gpu")))
    parser.add_argument("--mps", type=Path, help="folder with nvidia-cuda-mps-control and -server, when not on PATH")
    parser.add_argument("--only", default=",".join(LIMITS), help="experiments, joined by commas")
    parser.add_argument("--small", action="store_true", help="sizes for a simulated GPU")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.mps:
        os.environ["PATH"] = f"{options.mps.resolve()}:{os.environ['PATH']}"
    names = options.only.split(",")
    if unknown := sorted(set(names) - set(LIMITS)):
        parser.error(f"no such experiment: {unknown[0]}; there are {', '.join(LIMITS)}")
    results: dict[str, Any] = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "experiments": {}}
    end = time.monotonic() + BUDGET_SECONDS
    for number, name in enumerate(names, 1):
        limit = min(LIMITS[name], end - time.monotonic())
        print(f"[{number}/{len(names)}] {name} (at most {limit:.0f} s)", flush=True)
        if limit < 5:
            results["experiments"][name] = {"how": "no time left"}
            continue
        results["experiments"][name], text = conduct(name, limit, options.out, options.small)
        print(f"    {results['experiments'][name]['how']}", flush=True)
        if why := no_mps(results["experiments"][name].get("found", {})):
            results["without_mps"] = os.environ[WITHOUT_MPS] = why
            print(f"    no MPS server starts here ({why}): from now on only what needs none is asked", flush=True)
        with (options.out / "logs.txt").open("a") as logs:
            logs.write(text)
        (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    verdicts.main(options.out / "results.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
