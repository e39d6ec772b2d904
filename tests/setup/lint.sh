#!/usr/bin/env bash
# Every linter over every file that git knows; says which one failed, and fails if any did.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=.venv/bin/python
failed=()

check() {
    local name=$1
    shift
    printf 'lint: %s\n' "$name"
    "$@" || failed+=("$name")
}

# Files that git knows or would add: a file that is not committed yet is looked at too.
tracked() {
    git -c safe.directory='*' ls-files -z --cached --others --exclude-standard -- "$@" |
        while IFS= read -r -d '' file; do [ -f "$file" ] && printf '%s\0' "$file"; done
}

scripts() {
    tracked '*.sh' .ci/run
    tracked | while IFS= read -r -d '' file; do
        case $file in *.sh | *.j2 | .ci/run) continue ;; esac
        if head -c 64 "$file" | head -n 1 | LC_ALL=C grep -aqE '^#!.*\b(ba)?sh\b'; then printf '%s\0' "$file"; fi
    done
}

# A rendered file has the form that its template gives it; its own test looks whether it is stale.
written() {
    while IFS= read -r -d '' file; do
        if ! head -n 1 "$file" | grep -q 'Rendered from'; then printf '%s\0' "$file"; fi
    done
}

# kernel_module/ is in the kernel's own style, which its makefile looks after.
c_format() { tracked '*.c' '*.h' '*.cc' '*.cpp' ':!kernel_module' | written | xargs -0r clang-format --dry-run -Werror; }
# It tells a lot when all is well.
imports() { local said; said=$("${python%/*}/lint-imports" --no-cache --no-logo pyproject.toml) || { printf '%s\n' "$said"; return 1; }; }
shell() { scripts | xargs -0r shellcheck; }

check "ruff check" "$python" -m ruff check -q --output-format concise .
check "ruff format" "$python" -m ruff format -q --check .
check "mypy --strict" "$python" -m mypy --no-error-summary
check "import-linter" imports
if command -v clang-format >/dev/null; then check "clang-format" c_format; else echo "lint: no clang-format: left out"; fi
if command -v shellcheck >/dev/null; then check "shellcheck" shell; else echo "lint: no shellcheck: left out"; fi

if [ ${#failed[@]} -gt 0 ]; then
    printf 'mpsr: lint: failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
