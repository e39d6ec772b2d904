"""The drill's job: its script, and the command that submits it. Pure.

One job with a GPU of its own and fault domains of its own (`--mps-domain=job`), so that the fault meets nobody else: a step
with a bystander that keeps state, one with a bystander that does not, one that looks whether anybody else is on the GPU, one
with the culprit if nobody is. Each step
leaves `NAME.step` (its number), `NAME.status` (its exit status) and `NAME.log` (its output) in the drill's directory.
"""

import shlex
from collections.abc import Sequence

KEPT, PLAIN, LOOK, CULPRIT = "kept", "plain", "look", "culprit"
FAULTS = ("illegal-address", "illegal-write", "misaligned", "illegal-instruction", "trap")
_PACKAGE = "resilience.drill"
_BEGIN = 120
"""Seconds that the bystanders have to begin: drivers and MPS servers may start slowly."""
_HONEST = 1.0
"""Seconds of honest work of the culprit before its fault: a busy client."""
_AFTER = 60
"""Seconds that the bystanders have, after the culprit's end, to be back at work."""

STEP = """\
step() {
    local name=$1
    shift
    rm -f "$name.status"
    srun --overlap -n1 -N1 --mem=0 -o "$name.log" sh -c 'echo "$SLURM_STEP_ID" >"$0.step"; exec "$@"' "$name" "$@"
    echo $? >"$name.status"
}
"""
"""Shell: `step NAME PROGRAM...` runs a step and leaves its files."""
_SCRIPT = """\
#!/bin/bash
# The fire drill of mpsr: two programs that must survive, and one that makes a GPU fault beside them.
{step}# until each of the files is there, or a bystander has ended, or the seconds are over
until_there() {{
    local seconds=$1 file
    shift
    for file in "$@"; do
        until [ -e "$file" ] || [ -e {kept}.status ] || [ -e {plain}.status ] || [ "$seconds" -le 0 ]; do
            sleep 1
            seconds=$((seconds - 1))
        done
    done
}}
step {kept} {python} -m {package}.bystander --begun {kept}.begun --enough enough --out {kept}.out &
step {plain} {python} -m {package}.bystander --begun {plain}.begun --enough enough --out {plain}.out --plain &
until_there {begin} {kept}.begun {plain}.begun
rm -f {kept}.begun {plain}.begun
step {look} {python} -m {package}.alone
if [ "$(cat {look}.status)" = 0 ]; then
    step {culprit} {python} -m {package}.culprit {fault} --after {honest}
fi
rm -f {kept}.begun {plain}.begun
until_there {after} {kept}.begun {plain}.begun
touch enough
wait
[ "$(cat {kept}.status {plain}.status)" = "0
0" ]
"""


def script(python: str, fault: str) -> str:
    """The batch script; `python` runs the programs on the node."""
    return _SCRIPT.format(
        step=STEP,
        python=shlex.quote(python),
        fault=fault,
        package=_PACKAGE,
        kept=KEPT,
        plain=PLAIN,
        look=LOOK,
        culprit=CULPRIT,
        begin=_BEGIN,
        honest=_HONEST,
        after=_AFTER,
    )


def submit(directory: str, gres: str, more: Sequence[str]) -> list[str]:
    """The command; the script is its standard input. `more` is the caller's: a partition, a node, an account."""
    return [
        "sbatch",
        "--parsable",
        "--job-name=mpsr-drill",
        f"--chdir={directory}",
        f"--output={directory}/job.log",
        "--nodes=1",
        "--ntasks=3",
        "--time=10",
        f"--gres={gres}",
        "--mps",
        "--mps-domain=job",
        *more,
        "--no-requeue",
    ]
