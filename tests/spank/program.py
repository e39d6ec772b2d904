"""A program with a session, for the tests of the supervisor: speaks protocols.md §7 and writes what it was told.

`python program.py PLAN`: PLAN is a comma-separated list of what the *active* process does after `session`:
fault, long (a fault with many words), wait (for a message), until=FILE (is there), step, done, exit=N, keeper (wait until its keeper's
socket takes a connection).
A standby says `ready` and waits; after `promote` it puts its streams back, makes a step and ends with status 0.
"""

import os
import socket
import sys
import time

from resilience.parse import packet

BOUND = 8.0


def say(line: str) -> None:
    print(line, flush=True)


def main(plan: str) -> int:
    supervisor = socket.socket(fileno=int(os.environ["MPSR_FD"]))
    supervisor.settimeout(BOUND)
    role = os.environ["MPSR_ROLE"]

    def hear() -> str:
        verb, values = packet.unpack(supervisor.recv(packet.MAX_BYTES))
        if "token" in values:  # a secret: what matters is whose it is
            values["token"] = "its own" if values["token"] == os.environ["MPSR_TOKEN"] else "another"
        if verb == "retire":
            os._exit(0)
        return f"{verb} {' '.join(f'{key}={value}' for key, value in values.items())}".strip()

    supervisor.send(packet.pack("session", v=1, role=role))
    if role == "standby":
        print("standby's own words")
        sys.stdout.flush()
        supervisor.send(packet.pack("ready"))
        told = hear()
        for number, parked in enumerate(map(int, os.environ["MPSR_STDIO"].split(","))):
            os.dup2(parked, number)
        say(f"{told} color={os.environ['MPSR_COLOR']}")
        supervisor.send(packet.pack("stepped", seq=4, at=12.5))
        return 0
    say(f"active on {os.environ['MPSR_COLOR']}")
    if os.environ["MPSR_COLOR"] == "slow":  # never comes to its first step
        say(hear())
        return 0
    if os.environ["MPSR_COLOR"] != "a":
        supervisor.send(packet.pack("stepped", seq=4))
        return 0
    for act in plan.split(","):
        match act.split("="):
            case ["fault"]:
                supervisor.send(packet.pack("fault", cuda=700, call="cuCtxSynchronize", seq=3, text="illegal address"))
            case ["long"]:
                supervisor.send(packet.pack("fault", cuda=700, call="ö" * 300, seq=3, text="x" + "é" * 900))
            case ["until", path]:
                while not os.path.exists(path):
                    time.sleep(0.01)
            case ["wait"]:
                say(hear())
            case ["step"]:
                supervisor.send(packet.pack("stepped", seq=1))
            case ["done"]:
                supervisor.send(packet.pack("done"))
            case ["keeper"]:
                deadline = time.monotonic() + BOUND
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as keeper:
                    while keeper.connect_ex(os.environ["MPSR_KEEPER"]):
                        if time.monotonic() > deadline:
                            return 99
                        time.sleep(0.01)  # as a program does; bounded
                say("keeper answers")
            case ["exit", status]:
                return int(status)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
