"""The exceptions of mpsr. Expected outcomes are values; these are for what the caller cannot go on from.

Wording everywhere: `mpsr: <subject>: <what is wrong>: <observed value>`, then a hint line when there is a way out.
"""


class ResilienceError(Exception):
    """Base of all. `str()` is the whole message without the `mpsr: ` tag; `hint` is empty or the way out."""

    def __init__(self, subject: str, wrong: str, observed: object = "", *, hint: str = "") -> None:
        self.subject = subject
        self.wrong = wrong
        self.observed = str(observed)
        self.hint = hint
        text = f"{subject}: {wrong}"
        super().__init__(f"{text}: {self.observed}" if self.observed else text)

    def lines(self) -> str:
        """The message as shown to a person: tagged, with the hint on a line of its own."""
        return f"mpsr: {self}" + (f"\n  {self.hint}" if self.hint else "")


class ConfigError(ResilienceError):
    """A configuration file, an option or a template is wrong."""


class WireError(ResilienceError):
    """A message or a lease file does not follow docs/reference/protocols.md."""


class TrustError(WireError):
    """A file, or a directory above it, could have been changed by somebody else than root."""


class MpsControlError(ResilienceError):
    """The MPS control daemon did not do, or did not answer, what was asked."""


class DaemonGone(MpsControlError):
    """There is no control daemon any more where there was one."""


class ServerFaulted(MpsControlError):
    """The server of others is in its fault state: the node agent is recovering them."""


class SlurmError(ResilienceError):
    """Slurm refused or could not be reached."""


class SlurmAway(SlurmError):
    """Nobody answered: what was asked may be asked again."""


class UnknownJob(SlurmError):
    """Slurm does not know the job: it never did, or it ended more than MinJobAge ago."""


class GpuError(ResilienceError):
    """A call of the CUDA driver or of NVML failed. `code` is that library's own number, `call` the function's name."""

    def __init__(self, call: str, code: int, name: str = "", *, hint: str = "") -> None:
        self.call = call
        self.code = code
        library = "NVML" if call.startswith(("nvml", "NVML")) else "CUDA"
        super().__init__(call, f"{library} error {code}", name, hint=hint)


class StateError(ResilienceError):
    """Kept state cannot be attached, committed or spilled."""
