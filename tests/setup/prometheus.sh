#!/usr/bin/env bash
# Debian's prometheus and promtool into build/prometheus, for the tests of rules and dashboard (tests/unit/test_prometheus.py).
# Unpacked, not installed: no service of it is there to be started. 45 MB, fetched once; a host that has the package uses its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=build/prometheus

if { command -v promtool && command -v prometheus; } >/dev/null || [ -x "$target/usr/bin/promtool" ]; then exit 0; fi
rm -rf "$target.new"
mkdir -p "$target.new"
printf 'prometheus: apt-get download prometheus\n'
fetch() { (cd "$target.new" && apt-get download -q -o APT::Sandbox::User=root -o Acquire::Retries=3 prometheus >/dev/null); }
fetch || { apt-get update -q -o Acquire::Retries=3 >/dev/null && fetch; }
dpkg-deb -x "$target.new"/prometheus_*.deb "$target.new"
rm "$target.new"/prometheus_*.deb
rm -rf "$target"
mv "$target.new" "$target"
