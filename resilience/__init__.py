"""mpsr: fault-resilient NVIDIA MPS for Slurm.

`resilience.session()` is what programs use (docs/reference/session.md). It is loaded at the first use, so that the
keeper and the commands, which import this package too, stay small.
"""

TYPE_CHECKING = False  # as type checkers know it; the typing module is not needed to run
if TYPE_CHECKING:
    from resilience.state.session import session

__all__ = ["session"]


def __getattr__(name: str) -> object:
    if name == "session":
        from resilience.state.session import session

        return session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
