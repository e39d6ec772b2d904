"""The experiments, most valuable first: each has `run(stage) -> dict` and a limit in seconds. `E…` and `H…` number open questions.

Each module's first line says what only hardware can tell. An experiment records what it saw, also when that is an error; it judges nothing.
"""

LIMITS = {
    "environment": 30,
    "two_servers": 60,
    "kept_memory": 75,
    "one_server": 75,
    "standby": 45,
    "costs": 40,
    "rungs": 120,
    "commit": 40,
    "ending": 45,
    "zeroing": 20,
}
"""Name -> seconds, in the order of the run. The sum stays under nine minutes."""
