#!/usr/bin/env bash
# Both command lines of docs/how-to/hardware-run.md, as they stand there: `bash tests/gpu/hardware-run.sh first|rest|both`, in the
# root of a checkout. What they find goes below $OUT (build/gpu); with `both`, that of the second into a folder of its own.
set -uo pipefail

first() {
    set -o pipefail; export PYTHONUNBUFFERED=1 OUT="${OUT:-build/gpu}"; mkdir -p "$OUT"
    { date -u; uname -a; cat /proc/version; nproc; free -m; df -h . /tmp /dev/shm; ls -l /dev/nvidia* /usr/local/nvidia
      cat /proc/driver/nvidia/version; ldconfig -p | grep -E 'libcuda\.|libnvidia-ml'; env | grep -E '^(CUDA|NVIDIA|LD_LIBRARY)'
      timeout 8 nvidia-smi -q; dmesg | tail -n 50; } >"$OUT/machine.txt" 2>&1
    timeout -k 5 335 python3 -m tests.gpu.run --plan first --budget 310 --out "$OUT" 2>&1 | tee "$OUT/run.txt"; rc=$?
    { dmesg | tail -n 200; timeout 8 nvidia-smi; } >>"$OUT/machine.txt" 2>&1; (exit $rc)
}

rest() {
    set -o pipefail; export PYTHONUNBUFFERED=1 OUT="${OUT:-build/gpu}"; mkdir -p "$OUT"
    { date -u; uname -a; timeout 8 nvidia-smi -q -d PERFORMANCE,ECC,PAGE_RETIREMENT,CLOCK
      timeout 15 python3 -m pip list | grep -iE '^(torch|cupy|cuda|nvidia|triton)'; } >"$OUT/machine.txt" 2>&1
    timeout -k 5 545 python3 -m tests.gpu.run --plan rest --budget "${BUDGET:-480}" --out "$OUT" 2>&1 | tee "$OUT/run.txt"; rc=$?
    { dmesg | tail -n 200; timeout 8 nvidia-smi; } >>"$OUT/machine.txt" 2>&1; (exit $rc)
}

case ${1:-} in
first | rest) "$1" ;;
both)
    first
    OUT="${OUT:-build/gpu}/rest" rest
    ;;
*)
    echo "mpsr: hardware run: which part: ${1:-none}" >&2
    echo "  hint: first, rest or both" >&2
    exit 2
    ;;
esac
