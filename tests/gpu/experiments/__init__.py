"""The experiments, most valuable first: each has `run(stage) -> dict` and a limit in seconds. `E…` and `H…` number open questions.

Each module's first line says what only hardware can tell. An experiment records what it saw, also when that is an error; it judges nothing.
"""

LIMITS = {
    "environment": 14,
    "two_servers": 36,
    "kept_memory": 35,
    "standby": 25,
    "one_server": 36,
    "sparse": 15,
    "rungs": 68,
    "sightings": 34,
    "in_flight": 12,
    "commit": 32,
    "costs": 16,
    "partitions": 19,
    "rare_faults": 24,
    "disk": 40,
    "users": 18,
    "features": 20,
    "time_slicing": 15,
    "zeroing": 8,
    "limits": 18,
    "ending": 20,
    "kill_orders": 25,
}
"""Name -> seconds, in the order of the run: the most valuable first, what may leave a GPU in a bad state last.

The sum stays under nine minutes."""
