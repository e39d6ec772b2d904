"""The hardware run: every experiment in its own process with a time limit, under nine minutes in all.

    python3 -m tests.gpu.run --out DIR [--mps DIR] [--only NAME,NAME] [--small]

Needs only Python, the NVIDIA driver and, for what concerns MPS, `nvidia-cuda-mps-control` and `-server` on PATH or in `--mps DIR`. Writes
`results.json` (what was found, by experiment) and `logs.txt` (the MPS logs and whatever went to stderr). An experiment that fails, hangs or
crashes is a finding; the run goes on with the next. Never changes a setting of the GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.gpu.experiments import LIMITS

ROOT = Path(__file__).parent.parent.parent
BUDGET_SECONDS = 530.0


def conduct(name: str, seconds: float, folder: Path, small: bool) -> tuple[dict[str, Any], str]:
    """Findings and log text of one experiment, ended with everything it started when its time is over."""
    findings, log, stderr = (folder / f"{name}.{part}" for part in ("found", "mps", "stderr"))
    begin = time.monotonic()
    with stderr.open("wb") as errors:
        argv = [sys.executable, "-m", "tests.gpu.one", name, str(findings), str(log), *(["--small"] if small else [])]
        process = subprocess.Popen(
            argv, cwd=ROOT, stdout=errors, stderr=errors, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(seconds)
            how = f"ended with status {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            how = f"stopped after {seconds:.0f} s"
    result: dict[str, Any] = {"seconds": round(time.monotonic() - begin, 3), "how": how}
    if findings.exists():
        result["found"] = json.loads(findings.read_text())
    text = "".join(
        f"##### {path.name}\n{path.read_text(errors='replace')}\n" for path in (log, stderr) if path.exists()
    )
    for path in (findings, log, stderr):
        path.unlink(missing_ok=True)
    return result, text


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
        with (options.out / "logs.txt").open("a") as logs:
            logs.write(text)
        (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
