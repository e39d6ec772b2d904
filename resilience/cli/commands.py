"""The commands of `mpsr`, each with one line that says what it is for; imports nothing, so that every start can list them."""

COMMANDS = {
    "agent": "run the node agent",
    "prolog": "open a job's fault domains (Slurm's Prolog runs it)",
    "epilog": "close a job's fault domains (Slurm's Epilog runs it)",
    "hooks": "the server behind prolog and epilog (the agent starts it)",
    "run": "run a program of a batch script under a supervisor",
    "status": "servers, leases and the agent of this node",
    "top": "the same on one screen, again and again, with clients, memory and faults",
    "log": "the journal of this node, or a job's recovery log",
    "explain": "what happened in an incident or to a job; what options would do",
    "report": "a page with pictures: an incident, a job, or all since a time",
    "replay": "what other settings would have done, from a journal",
    "metrics": "what this node's journal comes to, as Prometheus takes it",
    "spills": "spilled state on disk that jobs have left, and taking it away",
    "check": "say what is wrong with a configuration",
    "drill": "see on this cluster that programs survive their neighbour's GPU fault",
    "guard": "see whether the guard module meets a fault of our own",
    "render": "make the files of a cluster from one YAML of choices",
    "version": "print the version of mpsr",
}
WITHOUT_ARGUMENTS = frozenset({"prolog", "epilog", "version"})
"""They have no module with `add` and `run`, and meet no argument parser."""
