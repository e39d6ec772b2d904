"""`nvidia-cuda-mps-control`, simulated: options, the start of the daemon, and the way to the front end.

Job: what happens before a daemon listens: directories, lock, sockets, pid file, and the messages and exit statuses of
every way in which that goes wrong, per driver branch (recorded, see transcripts/). The options of 615, the directories of protocol 3 and
the line that it prints at its start are documented only; so is `--apply`, whose errors, a line on standard error and status 1, are ours.

Guarantees: with -d the caller returns only when the sockets listen; the daemon then has its standard streams on
/dev/null, so nobody waits for the end of a pipe that it holds.
"""

from __future__ import annotations

import fcntl
import os
import sys

from . import dialect as dialects
from . import mps_commands, mps_daemon, mps_host, mps_log, mps_ui, mps_v3, mps_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .dialect import Dialect
    from .mps_v3_config import Config

PIPE, LOGS = "/tmp/nvidia-mps", "/var/log/nvidia-mps"
LONG = ("--daemon", "--foreground", "--version")
READY = 3
"""Where the daemon keeps the pipe to its caller; everything inherited above it is closed, so nobody waits for a
daemon."""
PID_FILE = "nvidia-cuda-mps-control.pid"
OPTIONS_3 = ("-h,--help", "-d,--daemon", "-f,--foreground", "-m,--multiuser", "-a,--apply <file>", "-p,--protocol <2|3>",
             "-q,--quit", "-v,--version")  # fmt: skip


class Flags:
    """The command line: `mode` is d, f, h, v, ui or bad.

    `protocol`: 2, or 3 where the driver has it; `command`: words of protocol 3; `apply`: its configuration file.
    """

    __slots__ = ("apply", "command", "lazy", "mode", "multiuser", "partitions", "protocol")

    def __init__(self, dialect: Dialect, words: list[str]) -> None:
        self.mode = "ui"
        self.multiuser = self.partitions = self.lazy = False
        self.apply = self.command = ""
        self.protocol = 2
        modern = dialect.lazy
        if dialect.protocol_3:
            words = self.of_protocol_3(words)
        for word in words:
            if word in ("-d", "-f", "-h", "--help", "-v") or (modern and word in LONG):
                self.mode = word.strip("-")[0]
            elif word in (("-M", "--multiuser-server") if modern else ("-multiuser-server",)):  # as their help has it
                self.multiuser = True
            elif modern and word in ("-L", "--lazy-init"):
                self.lazy = True
            elif modern and word in ("-q", "--ready-devices"):
                continue
            elif dialect.partitions and word in ("-S", "--static-partitioning"):
                self.partitions = True
            else:
                self.mode = "bad" if modern else "ui"
                return

    def of_protocol_3(self, words: list[str]) -> list[str]:
        """Take what only 615 has out of the command line; the environment beats -p (documented)."""
        protocol, words = taken(words, "-p", "--protocol")
        self.apply, words = taken(words, "-a", "--apply")
        if protocol not in ("", "2", "3"):
            return ["-p"]  # unrecognized
        protocol = os.environ.get("CUDA_MPS_PROTOCOL_VERSION", "") or protocol
        self.protocol = 3 if protocol == "3" else 2
        if words and words[0] in mps_v3.MODULES:
            self.command, words = " ".join(words), []
        if words in (["-q"], ["--quit"]):
            self.command, words = "quit -t 0", []
        return ["-M" if word in ("-m", "--multiuser") else word for word in words]


def taken(words: list[str], *options: str) -> tuple[str, list[str]]:
    """The value of an option, empty without it, and the other words; an option without a value stays where it is."""
    for place, word in enumerate(words[:-1]):
        if word in options:
            return words[place + 1], words[:place] + words[place + 2 :]
    return "", words


def usage(dialect: Dialect, protocol: int) -> str:
    """Options and commands by name; the real text explains them in NVIDIA's words (before 580 it has only a banner)."""
    if not dialect.lazy:
        return banner(dialect, False)
    if protocol == 3:
        lines = [
            banner(dialect, False),
            "",
            "nvidia-cuda-mps-control [options]",
            "nvidia-cuda-mps-control <module> <verb>",
        ]
        lines += ["OPTIONS:"] + [f"  {option}" for option in OPTIONS_3] + ["", "MODULES:"]
        return "\n".join(lines + [f"  {module}" for module in mps_v3.MODULES])
    options = ["-h,--help", "-d,--daemon", "-f,--foreground", "-M,--multiuser-server", "-q,--ready-devices"]
    if dialect.partitions:
        options.insert(4, "-S,--static-partitioning")
    lines = [banner(dialect, False), "", "nvidia-cuda-mps-control [options] [command]", "OPTIONS:"]
    lines += [f"  {option}" for option in options] + ["", "COMMAND:"]
    lines += [f"  {name}" for name in dialects.COMMANDS if name in dialect.commands]
    return "\n".join(lines)


def banner(dialect: Dialect, version: bool) -> str:
    """The first line of -h and -v."""
    system = "Linux/Unix/QNX" if dialect.lazy else "Linux/Unix"
    return f"CUDA MPS Control for {system}." + (f" Binary version: {dialect.cuda}" if version else "")


def main() -> None:
    """Entry point of build/gpusim/bin/nvidia-cuda-mps-control."""
    host = mps_host.read()
    name = os.environ.get("SIMGPU_MPS_DIALECT") or (
        host.values.get("dialect", dialects.DEFAULT) if host else dialects.DEFAULT
    )
    if name not in dialects.DIALECTS:
        print(f"gpusim: no such dialect of nvidia-cuda-mps-control: {name}", file=sys.stderr)
        raise SystemExit(2)
    dialect = dialects.DIALECTS[name]
    flags = Flags(dialect, sys.argv[1:])
    pipe = pipe_directory(dialect, flags)
    if flags.apply and (flags.protocol != 3 or flags.mode not in ("d", "f")):
        print(f"Configuration file {flags.apply}: only a daemon of protocol 3 reads one, at its start", file=sys.stderr)
        raise SystemExit(1)
    if flags.mode in ("d", "f"):
        raise SystemExit(daemon(dialect, flags, pipe))
    if flags.mode == "bad":
        print("Unrecognized option \0")
    if flags.mode in ("h", "bad"):
        print(usage(dialect, flags.protocol))
        raise SystemExit(0)
    if flags.mode == "v" and dialect.lazy:
        print(banner(dialect, True))
        raise SystemExit(0)
    raise SystemExit(mps_ui.run(pipe, [flags.command] if flags.command else sys.stdin))


def pipe_directory(dialect: Dialect, flags: Flags) -> str:
    """Where the daemon is: as the environment says, else by user and protocol; a front end follows the daemon that is there."""
    named = os.environ.get("CUDA_MPS_PIPE_DIRECTORY")
    if named or os.geteuid() != 0 or not dialect.protocol_3:
        return named or PIPE
    if flags.mode == "ui":
        for folder in (mps_v3.PIPE_OF_ROOT, PIPE):
            if os.path.exists(os.path.join(folder, "control")):
                return folder
    return mps_v3.PIPE_OF_ROOT if flags.protocol == 3 or flags.command else PIPE


def daemon(dialect: Dialect, flags: Flags, pipe: str) -> int:
    """Start the daemon; the exit status of the process that was called."""
    host = mps_host.read()
    if not flags.lazy and host is None and dialect.silent_without_driver:
        return dialect.silent_without_driver
    if (
        not flags.lazy
        and dialect.silent_without_gpu
        and not (host and host.visible(os.environ.get("CUDA_VISIBLE_DEVICES")))
    ):
        return dialect.silent_without_gpu
    if flags.multiuser and os.geteuid() != 0:
        print("Only root user may enable -multiuser-server!")
        return 1
    config = None
    if flags.apply:
        from . import mps_v3_config

        try:
            config = mps_v3_config.read(flags.apply, pipe, flags.multiuser)
        except (OSError, ValueError) as error:
            print(f"Configuration file {flags.apply}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
            return 1
    if flags.mode == "f":
        return serve(dialect, flags, pipe, None, config)
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        word = os.read(reader, 1)
        return word[0] if word else 1
    os.setsid()
    os.dup2(writer, READY)
    os.closerange(READY + 1, 1024)
    writer = READY
    status = 1
    try:
        status = serve(dialect, flags, pipe, writer, config)
    finally:
        os._exit(status)


def serve(dialect: Dialect, flags: Flags, pipe: str, ready: int | None, config: Config | None) -> int:
    """Everything from the directories to the end; `ready` gets one byte when the sockets listen."""
    lock = take_lock(pipe)
    if isinstance(lock, str):
        # 595 is silent where the directory cannot be made (recorded).
        if not dialect.partitions or os.path.lexists(pipe):
            print(lock, flush=True)
        return 1
    logs = os.environ.get("CUDA_MPS_LOG_DIRECTORY") or LOGS
    fifo = os.path.join(pipe, "log")
    if not os.path.lexists(fifo):
        os.mkfifo(fifo)
        os.chmod(fifo, 0o777)
    log = mps_log.Log(1, "Control")
    server_log: int | None = 1
    usable = make_directory(logs)
    if ready is not None:
        log = mps_log.Log(mps_log.append(os.path.join(logs, "control.log")), "Control")
        # With protocol 3 each server has a log of its own.
        server_log = None if flags.protocol == 3 else mps_log.append(os.path.join(logs, "server.log"))
    if not usable or log.descriptor is None:
        if dialect.partitions:
            print(f"Failed to create log directory [{logs}]. No logs will be available.", flush=True)
        print(f"Warning: Failed writing log files to directory [{logs}]. No logs will be available.", flush=True)
    path = os.path.join(pipe, "control")
    log.note(f"Starting control daemon using socket {path}")
    if flags.protocol == 3:
        print(connect := f"To connect CUDA applications to this daemon, set CUDA_MPS_PIPE_DIRECTORY={pipe}", flush=True)
    else:
        connect = f"To connect CUDA applications to this daemon, set env CUDA_MPS_PIPE_DIRECTORY={pipe}"
    if flags.protocol == 2 or ready is not None:  # else it stands on standard output, where the log goes, too
        log.note(connect)
    if dialect.lazy:
        log.note(f"CUDA MPS Control binary version: {dialect.cuda}")
    if len(f"{path}_privileged") > mps_wire.PATH_BYTES:
        return 1
    listeners = [mps_wire.listen(path, 0o666), mps_wire.listen(f"{path}_privileged", 0o755)]
    pid_file = os.path.join(pipe, PID_FILE)
    if dialect.pid_file:
        write_pid(pid_file)
    names = mps_v3.Names(pipe, logs) if flags.protocol == 3 else None
    options = mps_daemon.Options(flags.multiuser, flags.partitions, server_log, names)
    text = os.environ.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE")
    if text is not None and mps_commands.percentage(text) is None:
        log.note("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE should be between (0.0, 100.0]")
    control = mps_daemon.Control(dialect, log, pipe, listeners, options)
    if ready is not None:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.close(null)
    if config is not None and names is not None:
        config.apply(control, names)
    if ready is not None:
        os.write(ready, b"\0")
        os.close(ready)
    control.run()
    for gone in (pid_file, fifo):
        if os.path.lexists(gone):
            os.unlink(gone)
    return 0


def take_lock(pipe: str) -> int | str:
    """The descriptor of the lock, held as long as the daemon lives, or the line that says why there is none."""
    try:
        if not os.path.isdir(pipe):
            os.mkdir(pipe)
            os.chmod(pipe, 0o777)
        lock = os.open(os.path.join(pipe, "control_lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return f"Cannot access CUDA_MPS_PIPE_DIRECTORY={pipe}"
    if os.fstat(lock).st_uid == os.geteuid():
        os.fchmod(lock, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return "An instance of this daemon is already running"
    return lock


def make_directory(path: str) -> bool:
    """Make one level, 0700, if need be; False where that is not allowed."""
    if not os.path.isdir(path):
        try:
            os.mkdir(path, 0o700)
        except OSError:
            return False
    return True


def write_pid(path: str) -> None:
    """Our pid without a newline, 0666, over whatever was there."""
    if os.path.lexists(path):
        os.unlink(path)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    os.fchmod(file, 0o666)
    os.write(file, str(os.getpid()).encode())
    os.close(file)
