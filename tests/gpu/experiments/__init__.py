"""The experiments, most valuable first: each has `run(stage) -> dict` and a limit in seconds. `E…` and `H…` number open questions.

Each module's first line says what only hardware can tell. An experiment records what it saw, also when that is an error; it judges nothing.
"""

LIMITS = {
    "environment": 20,
    "two_servers": 45,
    "kept_memory": 50,
    "standby": 35,
    "one_server": 50,
    "sparse": 15,
    "rungs": 70,
    "sightings": 35,
    "in_flight": 20,
    "costs": 30,
    "commit": 25,
    "partitions": 19,
    "time_slicing": 20,
    "zeroing": 10,
    "limits": 25,
    "ending": 30,
    "kill_orders": 30,
}
"""Name -> seconds, in the order of the run: the most valuable first, what may leave a GPU in a bad state last.

The sum stays under nine minutes."""
