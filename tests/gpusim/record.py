"""Records what a control daemon says and does, as JSON: a real one for the transcripts, the simulated one to compare.

    python -m tests.gpusim.record /usr/bin/nvidia-cuda-mps-control --dialect 580 \\
        --provenance "Ubuntu questing-updates, nvidia-compute-utils-580-server 580.159.03-0ubuntu0.25.10.1" \\
        --library DIR_OF_LIBCUDA -o tests/gpusim/transcripts/580.json

The real daemon runs without a GPU (580 and later with `--lazy-init`), so any Debian machine can record. Unpack the
packages outside the repository (`apt-get download`, `dpkg -x`): they are proprietary, and only what they print is
committed. Run as root: some steps are another user's.

A transcript is {dialect, provenance, recorded, scenarios: {name: {step: observation}}}. An observation holds whatever
applies of: `rc`, `stdout`, `stderr`, `log` (new lines of control.log as `ROLE text`), `files` (name, kind and mode),
`alive`. Pids, times and private paths are replaced by names. `record_scenarios.py` says what is run.

Side effect of real daemons: libcuda, run by root, creates /dev/nvidiactl even where there is no driver. It is removed
again when it was not there before.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.gpusim.mps_harness import LIMIT, end, wait_for

Observation = dict[str, object]
Transcript = dict[str, dict[str, Observation]]
STAMP = re.compile(r"^\[[0-9: .-]{23} (\S+) +(\d+)\] (.*)$")
KINDS = {stat.S_IFSOCK: "socket", stat.S_IFREG: "file", stat.S_IFIFO: "fifo", stat.S_IFDIR: "directory"}
OTHER_UID = 65534


class RecordedPlace:
    """One scenario's private folder: its daemon, its steps, what was seen."""

    def __init__(self, recorder: Recorder, folder: Path) -> None:
        self.recorder = recorder
        self.folder = folder
        self.pipe = folder / "p"
        self.logs = folder / "l"
        self.seen: dict[str, Observation] = {}
        self._read = 0
        self._pids: dict[int, str] = {}

    def env(self, **more: str) -> dict[str, str]:
        """The environment of a step."""
        return (
            self.recorder.env
            | {"CUDA_MPS_PIPE_DIRECTORY": str(self.pipe), "CUDA_MPS_LOG_DIRECTORY": str(self.logs)}
            | more
        )

    # -- doing ---

    def run(self, step: str, *options: str, text: str = "", user: int | None = None, **more: str) -> Observation:
        """Run the control binary to its end and note what it said."""
        done = subprocess.run(
            [self.recorder.binary, *options],
            input=text,
            capture_output=True,
            text=True,
            env=self.env(**more),
            user=user,
            timeout=LIMIT,
            check=False,
            cwd=self.folder,
        )
        seen: Observation = {"rc": done.returncode}
        seen |= {"stdout": self.plain(done.stdout), "stderr": self.plain(done.stderr)}
        self.seen[step] = seen
        return seen

    def start(
        self, step: str = "start", *options: str, plainly: bool = False, user: int | None = None, **more: str
    ) -> Observation:
        """Start the daemon in the background, in the way that works without a GPU unless `plainly`, and wait for its
        log.

        Real daemons let the caller go before they have written them.
        """
        before = self._starts()
        seen = self.run(
            step, "-d", *(["-L"] if self.recorder.lazy and not plainly else []), *options, user=user, **more
        )
        if seen["rc"] == 0 and "No logs" not in str(seen["stdout"]):
            wait_for("the daemon's first lines", lambda: self._starts() > before or None)
        return seen

    def _starts(self) -> int:
        """How many daemons have written their last line of a start."""
        last = "CUDA MPS Control binary version" if self.recorder.lazy else "To connect CUDA applications"
        return sum(text.startswith(last) for _, _, text in self.lines())

    def ask(self, *lines: str, user: int | None = None, step: str = "", whole: bool = False) -> Observation:
        """Commands to the front end, with the log lines that they caused; with `whole` those before them, too."""
        if not whole:
            self.news()
        seen = self.run(step or " | ".join(lines), text="\n".join(lines) + "\n", user=user)
        wait_for("the front end's end in control.log", lambda: self._settled() or None)
        seen["log"] = self.news()
        return seen

    def _settled(self) -> bool:
        texts = [text for _, _, text in self.lines()[self._read :]]
        done = any(text == "UI closed" or text.startswith("Exit with status") for text in texts)
        return done or not self.alive()

    # -- seeing ---

    def lines(self) -> list[tuple[str, int, str]]:
        """control.log so far: role, pid, text."""
        try:
            raw = (self.logs / "control.log").read_text(errors="replace").splitlines()
        except OSError:
            return []
        found = [STAMP.match(line) for line in raw]
        lines = [(match[1], int(match[2]), match[3]) for match in found if match]
        if lines:
            self._pids.setdefault(lines[0][1], "<control>")
        return lines

    def news(self) -> list[str]:
        """The log's lines since the last call, `ROLE text`."""
        lines = self.lines()
        fresh = lines[self._read :]
        self._read = len(lines)
        return [self.plain(f"{role} {text}") for role, _, text in fresh]

    def daemon(self) -> int:
        """The pid of the latest daemon that wrote to the log; 0 before there is one."""
        starts = [pid for _, pid, text in self.lines() if text.startswith("Starting control daemon")]
        return starts[-1] if starts else 0

    def alive(self) -> bool:
        """Does that daemon run? A zombie does not."""
        try:
            return Path(f"/proc/{self.daemon()}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    def files(self, step: str) -> None:
        """Note the entries of both directories, and the directories themselves, with their modes."""
        listed = {}
        for name, folder in (("pipe", self.pipe), ("log", self.logs)):
            if folder.is_dir():
                listed[name] = _mode(folder)
                for entry in sorted(folder.iterdir()):
                    listed[f"{name}/{entry.name}"] = _mode(entry)
        self.seen[step] = {"files": listed}

    def note(self, step: str, **values: object) -> None:
        """Note anything else."""
        self.seen[step] = dict(values)

    def plain(self, text: str) -> str:
        """Without what differs from run to run: folders, pids."""
        text = re.sub(r"^\[[0-9: .-]{23} (\S+) +\d+\] ", r"[\1] ", text, flags=re.MULTILINE)
        text = text.replace(str(self.folder), "<folder>")
        for pid, name in self._pids.items():
            text = re.sub(rf"\b{pid}\b", name, text)
        return re.sub(r"(Starting new server |Server |NEW CLIENT |NEW SERVER )\d{3,}\b", r"\1<pid>", text)

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> None:
        """End the daemon by a signal and wait for that."""
        if self.alive():
            os.kill(self.daemon(), sign)
            wait_for("the daemon's end", lambda: not self.alive() or None)


def _mode(path: Path) -> str:
    entry = path.lstat()
    return f"{KINDS.get(stat.S_IFMT(entry.st_mode), 'other')} {stat.S_IMODE(entry.st_mode):04o}"


class Recorder:
    """One binary with its environment; `client` is a command that initialises CUDA once and prints its error code.

    `tries` is how often something random is tried; a recording wants to see all of its forms.
    """

    def __init__(self, binary: str, env: dict[str, str], dialect: str, client: list[str]) -> None:
        self.binary = binary
        self.env = env
        self.dialect = dialect
        self.lazy = int(dialect) >= 580
        self.client = client
        self.tries = 40

    def record(self, scenarios: dict[str, Callable[[RecordedPlace], None]]) -> Transcript:
        """Run every scenario in a folder of its own."""
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # below nohup the daemons would inherit that it is ignored
        transcript: Transcript = {}
        for name, scenario in scenarios.items():
            with tempfile.TemporaryDirectory(prefix="mps-record-") as folder:
                os.chmod(folder, 0o777)
                place = RecordedPlace(self, Path(folder))
                try:
                    scenario(place)
                finally:
                    end(place.folder)
                transcript[name] = place.seen
        return transcript


def main() -> None:
    """The command line."""
    from tests.gpusim.record_scenarios import SCENARIOS

    parser = argparse.ArgumentParser(prog="python -m tests.gpusim.record", description="Record a real control daemon.")
    parser.add_argument("binary")
    parser.add_argument("--dialect", required=True)
    parser.add_argument("--provenance", required=True, help="package and version that the binary came from")
    parser.add_argument("--library", required=True, help="folder of the libcuda.so.1 of the same driver")
    parser.add_argument("-o", "--output", type=Path, required=True)
    words = parser.parse_args()
    binary = Path(words.binary).resolve()
    paths = [str(binary.parent), str(binary.parent.parent / "sbin"), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    env = {"PATH": ":".join(paths), "LD_LIBRARY_PATH": words.library, "TZ": "UTC"}
    node = Path("/dev/nvidiactl")
    before = node.exists()
    code = 'import ctypes; print(ctypes.CDLL("libcuda.so.1").cuInit(0))'
    python = shutil.which("python3", path="/usr/bin:/bin") or "python3"
    try:
        recorder = Recorder(str(binary), env, words.dialect, [python, "-c", code])
        recorder.tries = 600
        scenarios = recorder.record(SCENARIOS)
    finally:
        if node.exists() and not before:
            node.unlink()
    document = {
        "dialect": words.dialect,
        "provenance": words.provenance,
        "recorded": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "scenarios": scenarios,
    }
    words.output.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
