"""The same commands with --mps and without, on one real cluster of two nodes: status, output and words are the same.

Each case is a user's shell script; `$M` is what asks for MPS, in one of the two runs. Both run at once, in directories
of their own. Numbers of jobs and ports are taken out before the two are compared, and lines are sorted, as tasks
write at once. What is different on purpose is in docs/explanation/slurm.md.
"""

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.cluster.sandbox import Sandbox

pytestmark = [pytest.mark.cluster, pytest.mark.sim]

ASK = "--mps --gres=shard:1"
AT_ONCE = 4
"""Cases. A node has eight shards, and no case holds more than two of them for long."""


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    out: list[str]
    err: list[str]


CASES = {
    "job array": """
        cat >array.sh <<'X'
#!/bin/bash
srun -Q bash -c 'echo $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT'
exit $SLURM_ARRAY_TASK_ID
X
        sbatch -Q --wait $M --array=1-3 --output=a.%a.%x.out -J name array.sh
        echo $?; tail a.*.out""",
    "output patterns": """
        srun -Q $M -N2 -n2 --output=o.%x.%N.%n.%t.%s.out -J name bash -c 'echo $SLURM_PROCID'
        tail o.*; srun -Q $M --output=none echo lost; srun -Q $M -n2 --output=one -l echo word; sort one
        srun -Q $M --error=errors bash -c 'echo bad >&2'; cat errors""",
    "array output patterns": """
        sbatch -Q --wait $M --array=7 --output=%A_%a.out --wrap='srun -Q echo here' >/dev/null
        cat *_7.out; ls *_7.out | sed 's/^[0-9]*_/N_/'""",
    "open mode": """
        for mode in append append truncate append; do
            srun -Q $M --open-mode=$mode --output=file bash -c "echo $mode"; done; cat file""",
    "heterogeneous job": """
        salloc -Q $M -n1 -wn0 : $M -n2 -wn1 srun -Q -l --het-group=0,1 bash -c 'echo $SLURMD_NODENAME $SLURM_PROCID'
        salloc -Q $M -n1 -wn0 : $M -n2 -wn1 srun -Q -l --het-group=1 bash -c 'echo $SLURMD_NODENAME; exit 5'""",
    "broadcast": """
        printf '#!/bin/sh\\necho $(basename $0) $1; exit 9\\n' >prog; chmod +x prog
        srun -Q $M -N2 --bcast=/tmp/copy.$RUN ./prog word; ls /tmp/copy.$RUN""",
    "steps that overlap": """
        sbatch -Q --wait $M -n2 -o out --wrap='
            srun -Q --overlap -n2 bash -c "sleep 1; echo first" & srun -Q --overlap -n1 echo second; wait'
        cat out""",
    "salloc": """
        salloc -Q $M -n2 bash -c 'srun -Q hostname; srun -Q -n1 bash -c "exit 3"; echo $?; exit 4'""",
    "salloc, from a pipe": "echo 'srun -Q echo inner; exit 6' | salloc -Q $M bash",
    "clean environment": """
        WORD=1 srun -Q $M --export=NONE /bin/bash -c 'echo ${WORD-unset} ${SLURM_JOB_ID:+job}'
        WORD=1 srun -Q $M --export=WORD /bin/bash -c 'echo ${WORD-unset}'
        WORD=1 srun -Q $M --export=ALL,MORE=2 /bin/bash -c 'echo $WORD $MORE'""",
    "directory that cannot be entered": "srun -Q $M --chdir=/root bash -c 'pwd'; srun -Q $M --chdir=/nowhere pwd",
    "kill on bad exit": "srun -Q $M -n2 -K bash -c '[ $SLURM_PROCID = 0 ] && exit 3; sleep 60'",
    "wait for the others": "srun -Q $M -n2 --wait=1 bash -c '[ $SLURM_PROCID = 0 ] && exit 0; sleep 60'",
    "sattach": """
        job=$(sbatch --parsable $M -o out --wrap='srun -Q --input=all bash -c "touch '$PWD'/up; until [ -e '$PWD'/go ]; do sleep 0.1; done
            echo from the step; exit 8"')
        until [ -e up ]; do sleep 0.1; done; (sleep 2; touch go) & sattach -Q $job.0; echo $?; wait""",
    "several programs": """
        printf '0 bash -c "echo zero; exit 0"\\n1-2 bash -c "echo one of %%t; exit %%o"\\n' >conf
        srun -Q $M -n3 --multi-prog conf""",
    "signal to all steps": """
        job=$(sbatch --parsable $M -o out --wrap='trap "echo script" USR1
            srun -Q bash -c "trap \\"echo step; exit 2\\" USR1; touch up; while :; do sleep 0.1; done"; echo $?')
        until [ -e up ]; do sleep 0.1; done; scancel -Q --signal=USR1 $job
        while squeue -h -j $job | grep -q .; do sleep 0.1; done; cat out""",
    "signal to everything": """
        job=$(sbatch --parsable $M -o out --wrap='trap "echo script" USR1
            srun -Q bash -c "trap \\"echo step; exit 2\\" USR1; touch up; while :; do sleep 0.1; done"; echo $?')
        until [ -e up ]; do sleep 0.1; done; scancel -Q --full --signal=USR1 $job
        while squeue -h -j $job | grep -q .; do sleep 0.1; done; cat out""",
    "signal to the script": """
        job=$(sbatch --parsable $M -o out --wrap='trap "echo script; touch go" USR1
            srun -Q bash -c "trap \\"echo step\\" USR1; touch up; until [ -e go ]; do sleep 0.1; done" & wait; wait')
        until [ -e up ]; do sleep 0.1; done; scancel -Q --batch --signal=USR1 $job
        while squeue -h -j $job | grep -q .; do sleep 0.1; done; cat out""",
    "standard input": """
        echo word | srun -Q $M -n2 cat; echo word | srun -Q $M -n2 --input=1 -l cat; echo word >in
        srun -Q $M -n2 --input=in -l cat; echo word | srun -Q $M --input=none cat; srun -Q $M cat </dev/null""",
    "interrupt": """
        (until [ -e up ]; do sleep 0.1; done; pkill -INT -P $$ -x srun) &
        srun -Q $M --quit-on-interrupt bash -c "touch $PWD/up; exec sleep 60"; echo $?""",
    "terminated srun": """
        (until [ -e up ]; do sleep 0.1; done; pkill -TERM -P $$ -x srun) &
        srun -Q $M bash -c "trap 'echo term; exit 3' TERM; touch $PWD/up; while :; do sleep 0.1; done"; echo $?""",
    "limits and mask": """
        umask 027; ulimit -n 321; ulimit -s 4096
        srun -Q $M bash -c 'umask; ulimit -n; ulimit -s; ulimit -c; nice'; srun -Q $M --propagate=NONE bash -c 'ulimit -n'""",
    "task prolog and epilog": """
        printf '#!/bin/sh\\necho export ADDED=1; echo print from the prolog\\n' >before
        printf '#!/bin/sh\\necho after $ADDED\\n' >after; chmod +x before after
        srun -Q $M --task-prolog=$PWD/before --task-epilog=$PWD/after bash -c 'echo $ADDED; exit 3'""",
    "dependency": """
        first=$(sbatch --parsable $M -o /dev/null --wrap='srun -Q bash -c "exit 1"')
        sbatch -Q --wait $M -d afternotok:$first -o out --wrap='srun -Q echo after'; cat out""",
    "closed streams": "srun -Q $M bash -c 'exec <&- >&-; cat; exit 7'",
    "a task's child outlives it": "srun -Q $M bash -c '(sleep 1; echo late) & exit 0'",
}


OTHER_WORDS = {
    "several programs": "we say that these tasks have no supervisor",
    "interrupt": "Slurm says one thing or another, also without us",
    "wait for the others": "srun may have gone before it hears that the last task was killed, also without us",
}
"""Where what is said on standard error may differ, and why."""


def both(cluster: Sandbox, case: str, script: str, asked: str = ASK) -> tuple[Said, Said]:
    """A case's script without and with MPS."""
    running = []
    for name, ask in (("plain", ""), ("mps", asked)):
        place = re.sub(r"\W+", "-", case)
        head = f"mkdir -p {name}/{place}; cd {name}/{place}; RUN={name} M='{ask}'\n"
        running.append(cluster.popen(["timeout", "-k", "1", "60", "bash", "-c", head + script], user="alice"))
    plain, ours = (Said(0, *map(lines, process.communicate())) for process in running)
    return (
        Said(running[0].returncode, plain.out, plain.err),
        Said(running[1].returncode, ours.out, ours.err),
    )


def lines(text: str) -> list[str]:
    """What was said without what differs from one job to the next."""
    text = re.sub(r"^\[20\d\d-\S+\] ", "", text, flags=re.M)  # 26.05
    text = re.sub(r"StepId=\d+(\+\d+)?|STEP \d+(\+\d+)?|JOB \d+|job \d+|Job \d+|AT \d{4}-\S+", "…", text)
    text = re.sub(r"\bn[01](?=: tasks? )|(?<=slurmstepd-)n[01]|(?<= ON )n[01]", "node", text)
    text = re.sub(r"^User defined signal 1\n", "", text, flags=re.M)  # bash, if the signal met its `sleep`
    text = re.sub(r"/home/alice/(plain|mps)|/tmp/copy\.(plain|mps)", "DIR", text)
    return sorted(re.sub(r"copy\.(plain|mps)", "copy", text).splitlines())


@pytest.fixture(scope="module")
def results(cluster: Sandbox, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[tuple[Said, Said]]]]:
    """All cases that were chosen, a few at a time: most of their time is waiting for Slurm."""
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    chosen = [str(item.callspec.params["name"]) for item in items if item.function is test_as_without]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(both, cluster, name, CASES[name]) for name in chosen}


@pytest.mark.parametrize("name", CASES)
def test_as_without(results: dict[str, Future[tuple[Said, Said]]], name: str) -> None:
    plain, ours = results[name].result()
    assert plain.status != 124, "the case did not come to its end"
    assert (ours.status, ours.out) == (plain.status, plain.out), ours.err
    assert name in OTHER_WORDS or ours.err == plain.err
    assert plain.out or plain.err
