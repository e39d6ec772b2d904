#!/usr/bin/env bash
# Copy the clone into a directory: what git knows or would add, as it lies here. `copy.sh DIRECTORY`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
there=${1:?usage: copy.sh DIRECTORY}
mkdir -p "$there"
git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do [ -f "$file" ] && printf '%s\0' "$file"; done |
    tar --null -T - -cf - | tar --no-same-owner -xf - -C "$there"
