#!/bin/bash
# Inside a system: the packages are replaced while the agent, a supervised task and its keeper run; then the agent is
# started anew, and the task goes back to it. `upgrade.sh PACKAGE...`
# The last line is `undisturbed`; anything else is said before that and ends it.
set -euo pipefail
export SLURMD_NODENAME=n0
jobs=/run/mpsr/n0/jobs

until_true() {
    for _ in $(seq 600); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    printf 'never: %s\n' "$*"
    cat /tmp/agent.out
    exit 1
}
answers() { { mpsr status || true; } | grep "the agent answers"; } # its exit status tells of the absent MPS server
keeper() { { grep -lz 'resilience.state.[k]eeper' /proc/[0-9]*/cmdline || true; } 2>/dev/null | cut -d / -f 3 | grep .; }
came_back() { grep -E '"event":"task.hello".*"resumed":true' /var/log/mpsr/n0/journal.jsonl; }

# a job of alice as the prolog would have opened it
useradd -m alice
uid=$(id -u alice) gid=$(id -g alice)
install -d -m 755 "$jobs"
install -d -o alice -m 700 "$jobs/1"
printf '%s\n' version=1 job=1 "uid=$uid" "gid=$gid" user=alice node=n0 restart=0 state=open reason= \
    "options=mps=on;domain=user;state=64;standby=off" "domain=u$uid" isolation=domains slots= colors=a \
    gpus=0:GPU-00000000-0000-0000-0000-000000000000 run=/run/mpsr log=/var/log/mpsr agent=/run/mpsr/n0/agent.sock \
    python=/usr/bin/python3 spill= opened=1790000000.123 >"$jobs/1.lease"

# there is no driver here: the job's control daemon, as far as it answers that it runs
printf '#!/bin/sh\ncat >/dev/null\necho 100.0\n' >/usr/local/bin/nvidia-cuda-mps-control
chmod 755 /usr/local/bin/nvidia-cuda-mps-control
install -d -m 755 "/run/mpsr/n0/d/u$uid/g0"
install -d -o alice -m 700 "/run/mpsr/n0/d/u$uid/g0/a"
touch "/run/mpsr/n0/d/u$uid/g0/a/control"

mpsr agent >/tmp/agent.out 2>&1 &
agent=$!
until_true answers
cd /home/alice
# a program with a session, as far as the supervisor sees it, which then starts the keeper
# shellcheck disable=SC2016  # expanded by the task
program='echo $$ >task; printf "session v=1 role=active" >&"$MPSR_FD"; until [ -e /tmp/end ]; do sleep 0.1; done; exit 7'
SLURM_JOB_ID=1 SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_LOCALID=0 setpriv --reuid="$uid" --regid="$gid" --init-groups \
    /usr/libexec/mpsr/mpsr-launch bash -c "$program" &
supervisor=$!
until_true test -s task
until_true keeper
running=("$agent" "$supervisor" "$(cat task)" "$(keeper)")

apt-get install -y -q --no-install-recommends "$@"
for pid in "${running[@]}"; do kill -0 "$pid"; done
answers

kill "$agent"
wait "$agent"
mpsr agent >/tmp/agent.out 2>&1 &
until_true came_back
for pid in "${running[@]:1}"; do kill -0 "$pid"; done
touch /tmp/end
status=0
wait "$supervisor" || status=$?
[ "$status" = 7 ] || { printf 'the task ended with %s\n' "$status"; exit 1; }
kill $!
wait $!
rm "$jobs/1.lease"
echo undisturbed
