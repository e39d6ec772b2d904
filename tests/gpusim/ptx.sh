#!/bin/sh
# Usage: ptx.sh <source.cu> <out.ptx>
# Compiles a .cu file to PTX as the project commits it: without the compiler's own header and as PTX ISA 6.4, which every
# driver since 2019 takes (nvcc writes its own newest version, which older drivers refuse; the code needs nothing newer).
# The first lines name the source's sum and the compiler: so a stale file shows without nvcc, too, and another compiler's
# other register numbers are not taken for one. NVCC: the compiler, else that on PATH.
set -eu
flags='-ptx -arch=sm_75 -fmad=false'
out=$(realpath "$2")
nvcc=${NVCC:-nvcc}
raw=$(mktemp)
trap 'rm -f "$raw"' EXIT
cd "$(dirname "$1")" # the source's name ends up in the PTX of an assert: no directories in it
source=$(basename "$1")
# shellcheck disable=SC2086 # the flags are words
"$nvcc" $flags -o "$raw" "$source"
{
    echo "// Generated from $source by tests/gpusim/Makefile (make ptx): nvcc $flags. Do not edit."
    echo "// sha256 of $source: $(sha256sum <"$source" | cut -d ' ' -f 1)"
    echo "// nvcc $("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')"
    sed -e '/^\/\//d' -e '1,/^\.version/{/^$/d}' -e 's/^\.version .*/.version 6.4/' "$raw"
} >"$out"
