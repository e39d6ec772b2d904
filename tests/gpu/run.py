"""The hardware run: every experiment in its own process with a time limit, all of them within a budget.

    python3 -m tests.gpu.run --out DIR [--plan first|rest] [--budget S] [--limit NAME=S] [--mps DIR] [--only NAME,NAME]
                             [--kinds KIND,KIND] [--small]

Needs only Python, the NVIDIA driver and, for what concerns MPS, `nvidia-cuda-mps-control` and `-server` on PATH, in `--mps DIR` or where a
bounded search finds them. Writes `results.json` (what was found, by experiment), `logs.txt` (the MPS logs and whatever went to stderr)
and `hypotheses.json` (what that says about the simulator's assumptions), after each experiment anew. An experiment that fails, hangs or
crashes is a finding; the run goes on with the next, unless the GPU itself no longer answers. Never changes a setting of the GPU. Whatever
kills the run, nothing of it lives on.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.gpu import health, programs, verdicts
from tests.gpu.conduct import conduct
from tests.gpu.experiments import BUDGETS, DANGEROUS, LIMITS, PLANS, RESERVE
from tests.gpu.faults import KINDS
from tests.gpu.results import FILE, Results
from tests.gpu.stage import ONLY_KINDS, PATIENCE, WITHOUT_MPS
from tests.gpu.strings import ROOT

BUDGET_SECONDS = BUDGETS["all"]
SHORTEST_SECONDS = 5.0
BROUGHT = ROOT / ".mps"
"""A folder of MPS programs that a checkout may bring along; git does not know it."""
AGAIN_SECONDS = 2.0


def no_mps(found: dict[str, Any]) -> str:
    """Why MPS cannot be used, from what `environment` found: empty only where a process was a client."""
    client, server = found.get("client", {}), found.get("server", {})
    if client.get("mps") == 1:
        return ""
    words = [
        f"state {server['state']}" if "state" in server else "no server",
        f"rc {server.get('rc')}",
        str(server.get("out", "")),
    ]
    heard = (
        client.get("gone") or client.get("failed") or f"code {client.get('code')}, attribute 133 {client.get('mps')}"
    )
    return f"{', '.join(filter(None, words))}; client: {heard}"


def gvisor(release: str, version: str, ring: str) -> bool:
    """Is this kernel gVisor? It calls itself 4.4.0, older than any that a driver with these features runs on, and says so in its log."""
    return release == "4.4.0" or "gvisor" in f"{version}{ring}".lower()


def on_gvisor() -> bool:
    try:
        ring = subprocess.run(["dmesg"], capture_output=True, timeout=5, check=False).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        ring = ""
    version = Path("/proc/version")
    return gvisor(platform.release(), version.read_text() if version.exists() else "", ring[:20_000])


def limit(text: str) -> tuple[str, float]:
    name, _, seconds = text.partition("=")
    if name not in LIMITS:
        raise argparse.ArgumentTypeError(f"no such experiment: {name}; there are {', '.join(LIMITS)}")
    return name, float(seconds)


def kinds(text: str) -> str:
    if unknown := sorted({*text.split(",")} - {"", *KINDS}):
        raise argparse.ArgumentTypeError(f"no such kind of fault: {unknown[0]}; there are {', '.join(KINDS)}")
    return text


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "build/gpu")))
    parser.add_argument("--mps", type=Path, default=BROUGHT if BROUGHT.is_dir() else None, metavar="DIR",
                        help="folder with nvidia-cuda-mps-control and -server, asked before PATH")  # fmt: skip
    parser.add_argument("--plan", choices=PLANS, default="all", help="first: what decides the design; rest: the others")
    parser.add_argument("--only", help="experiments, joined by commas")
    parser.add_argument("--limit", type=limit, action="append", default=[], metavar="NAME=S", help="of one experiment")
    parser.add_argument("--budget", type=float, metavar="S", help="of the whole run")
    parser.add_argument("--patience", type=float, default=float(os.environ.get(PATIENCE, "1")), metavar="N",
                        help="multiplies budget, limits and waits; for a simulated GPU on a busy machine")  # fmt: skip
    parser.add_argument("--kinds", type=kinds, default=os.environ.get(ONLY_KINDS, ""), metavar="KIND,KIND",
                        help="of fault, where an experiment commits one of each: those alone")  # fmt: skip
    parser.add_argument("--small", action="store_true", default="SIMGPU_DIR" in os.environ,
                        help="sizes for a simulated GPU, and the default on one")  # fmt: skip
    chosen = parser.parse_args()
    chosen.names = chosen.only.split(",") if chosen.only else list(PLANS[chosen.plan])
    if unknown := sorted(set(chosen.names) - set(LIMITS)):
        parser.error(f"no such experiment: {unknown[0]}; there are {', '.join(LIMITS)}")
    return chosen


class Run:
    def __init__(self, chosen: argparse.Namespace, folder: Path, results: Results) -> None:
        self.chosen, self.folder, self.results = chosen, folder, results
        self.budget = (chosen.budget or BUDGETS[chosen.plan]) * chosen.patience
        self.end = time.monotonic() + self.budget
        self.limits = {**LIMITS, **dict(chosen.limit)}
        self.failures = list[str]()
        self.gvisor = on_gvisor()

    def seconds(self, name: str) -> float:
        """What an experiment may take; some time is kept for the first of the dangerous ones, which come last."""
        last = DANGEROUS.keys() & set(self.chosen.names) and name not in DANGEROUS and not self.gvisor
        kept = min(RESERVE, self.budget / 4) if last else 0.0
        return float(min(self.limits[name] * self.chosen.patience, self.end - time.monotonic() - kept))

    def left_out(self, name: str, seconds: float) -> str:
        if len(self.failures) > 1:
            return f"not run: the GPU did not answer twice: {self.failures[-1]}"
        if name in DANGEROUS and self.gvisor:
            return "not run: dangerous, and this is gVisor"
        return "no time left" if seconds < min(SHORTEST_SECONDS, self.limits[name]) else ""

    def one(self, name: str) -> str:
        """Conduct it, or say why not; how it ended."""
        seconds = self.seconds(name)
        if why := self.left_out(name, seconds):
            self.results.add(name, {"how": why})
            return why
        result, text = conduct(name, seconds, self.results.out, self.chosen.small, self.folder)
        self.results.add(name, result, text)
        if name == "environment" and (why := no_mps(result.get("found", {}))):
            os.environ[WITHOUT_MPS] = why
            self.results.note(without_mps=why)
            print(f"    no client is served by MPS here ({why}): from now on only what needs none is asked", flush=True)
        return str(result["how"])

    def look(self) -> None:
        """Does the GPU still answer? Asked twice, once more after a while."""
        self.failures.clear()
        while len(self.failures) < 2 and (why := health.probe(str(self.folder / "nowhere"), self.chosen.patience)):
            self.failures.append(why)
            print(f"    the GPU does not answer: {why}", flush=True)
            if len(self.failures) < 2:
                time.sleep(AGAIN_SECONDS)
        if self.failures:
            self.results.note(unwell=[*self.results.told.get("unwell", []), *self.failures])

    def all(self) -> None:
        for number, name in enumerate(self.chosen.names, 1):
            print(f"[{number}/{len(self.chosen.names)}] {name}", flush=True)
            print(f"    {self.one(name)}", flush=True)
            verdicts.write(self.results.out)
            if number < len(self.chosen.names) and len(self.failures) < 2:
                self.look()


def main() -> int:
    chosen = options()
    os.environ[PATIENCE], os.environ[ONLY_KINDS] = str(chosen.patience), chosen.kinds
    os.environ["PATH"], tried = programs.find(os.environ, chosen.mps)
    results = Results(
        chosen.out, started=datetime.now(UTC).isoformat(timespec="seconds"), names=chosen.names, programs=tried
    )
    folder = Path(tempfile.mkdtemp(prefix="hw", dir="/tmp"))
    folder.chmod(0o711)
    argv = [sys.executable, "-m", "tests.gpu.warden", str(folder)]
    warden = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              start_new_session=True)  # fmt: skip
    try:
        run = Run(chosen, folder, results)
        results.note(gvisor=run.gvisor)
        run.all()
    finally:
        warden.communicate()
    verdicts.main([chosen.out / FILE])
    return 0


if __name__ == "__main__":
    sys.exit(main())
