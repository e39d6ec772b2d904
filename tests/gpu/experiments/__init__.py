"""The experiments: each has `run(stage, found)`. `E…`, `H…` and `P…` number open questions (questions.toml).

Each module's first line says what only hardware can tell. An experiment records what it saw, also when that is an error; it judges nothing.
A limit is what an experiment needs on hardware where a server and a context take seconds; the budget of the whole run, not the sum of the
limits, is what holds.
"""

FIRST = {
    "environment": 75,
    "two_servers": 90,
    "kept_memory": 120,
    "standby": 75,
    "costs": 60,
    "zeroing": 30,
    "sightings": 60,
}
"""What decides the design (H1 to H4, E11), then what else is asked for first: name -> seconds, most valuable first."""

REST = {
    "environment": 75,
    "torch": 60,
    "one_server": 60,
    "stand_in": 30,
    "in_flight": 30,
    "cupy": 40,
    "rungs": 75,
    "commit": 40,
    "users": 30,
    "sparse": 20,
    "rare_faults": 45,
    "features": 30,
    "time_slicing": 25,
    "partitions": 25,
    "limits": 25,
    "disk": 40,
}

DANGEROUS = {"endings": 60, "kill_orders": 40, "ending": 40}
"""What may leave a GPU, or the host's driver, in a bad state: last, and never on gVisor."""

LIMITS = FIRST | REST | DANGEROUS
PLANS = {"first": FIRST, "rest": REST | DANGEROUS, "all": LIMITS}
BUDGETS = {"first": 345.0, "rest": 520.0, "all": 540.0}
"""Seconds of a whole run; what is left of a command's ten minutes is for its start and its end."""
RESERVE = 60.0
"""Of a run with dangerous experiments in it, for the first of those."""
