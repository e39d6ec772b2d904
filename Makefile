# What one does with a clone of mpsr. Everything lands in build/ and .venv/; the host is changed by `make setup` alone,
# which installs Debian packages that are missing (the other targets call it; 0.1 s when there is nothing to do).
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
PYTHON := $(CURDIR)/.venv/bin/python
export PYTHONPATH := $(CURDIR)
BUILD := $(CURDIR)/build
PREFIX := /opt/mpsr
PLUGIN_DIR := /usr/lib/$(shell uname -m)-linux-gnu/slurm-wlm
CC := gcc
CXX := g++
# Several tests at once, those of a file in one process; PYTEST="-n 0 …" runs one after the other.
AT_ONCE := -n auto --dist loadfile
# Debian's names; each has another release of Slurm.
RELEASES := trixie sid
# Each with a Makefile of its own, which puts its products below build/.
PARTS := spank_plugin tests/gpusim

.PHONY: help setup build toolkit torch mpi contract docs site lint format test releases guard lock fuzz demo bench soak install programs install-files deb rpm clean
help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: ## install what is missing: Debian packages (as root), .venv
	@bash tests/setup/setup.sh

build: setup ## the plugin, the supervisor, the hooks' program and the simulated GPU, into build/
	@for part in $(wildcard $(PARTS:%=%/Makefile)); do \
	    printf 'build: %s\n' "$${part%/Makefile}"; \
	    $(MAKE) -s -C "$${part%/Makefile}" CC=$(CC) CXX=$(CXX); \
	done
	@$(PYTHON) -m tests.gpusim.host install $(BUILD)/gpusim
	@$(PYTHON) -m compileall -q resilience tests

contract: setup ## render contract.h, contract.sh and table.py from contract.toml
	@$(PYTHON) -m resilience.contract.render

docs: setup ## render what follows from the code: reference pages, manual pages, completions
	@$(PYTHON) docs/generate.py
	@$(PYTHON) docs/generate_commands.py

site: ## the docs as a site with search, into build/site; fetches what that needs (SITE="deploy 0.2 latest" with mike)
	@bash docs/site.sh $(SITE)

lint: setup ## ruff, mypy --strict, import-linter, clang-format, shellcheck
	@bash tests/setup/lint.sh

format: setup ## let ruff and clang-format rewrite what they would complain about
	@$(PYTHON) -m ruff check -q --fix . ; $(PYTHON) -m ruff format -q .
	@git ls-files -z '*.c' '*.h' '*.cc' '*.cpp' '*.cu' | xargs -0r clang-format -i

test: build ## every tier that this machine can run; says which it leaves out and why
	@bash tests/setup/reachable.sh .venv/bin/python -m pytest -q $(AT_ONCE) $(PYTEST)

toolkit: setup ## NVIDIA's headers, nvcc and ptxas from PyPI, for the tests that compare with them
	@bash tests/setup/toolkit.sh

torch: setup ## PyTorch's CPU build into .venv, for the tests that train with it
	@bash tests/setup/torch.sh

mpi: setup ## mpi4py into .venv, for the tests whose programs are MPI ranks
	@bash tests/setup/mpi.sh

releases: ## tests and short demo on the Slurm of other Debian releases, RELEASES="trixie sid"
	@status=0; for suite in $(RELEASES); do bash tests/setup/release.sh $$suite $(PYTEST) || status=1; done; exit $$status

guard: setup ## the kernel module, built and run in a virtual machine; fetches what that needs (GUARD=--all, --debug)
	@bash tests/guard/setup.sh $(GUARD)
	@GUARD=$(GUARD) $(PYTHON) -m pytest -q tests/guard tests/unit/test_guard.py tests/unit/test_guard_records.py

lock: setup ## render requirements/ from pyproject.toml: versions and hashes of all that pip installs (UPGRADE=1)
	@bash tests/setup/lock.sh

fuzz: build ## every parser of foreign bytes for ten minutes (FUZZ="--seconds N --only NAME"); finds lie in build/fuzz/finds
	@bash tests/setup/fuzz.sh
	@$(PYTHON) -m tests.fuzz $(FUZZ)

demo: build ## real jobs survive their neighbour's GPU fault, on a private Slurm cluster; build/demo.json
	@$(PYTHON) -m tests.demo $(DEMO)

bench: build ## what it costs and how fast it is: a table and build/bench.json
	@$(PYTHON) -m tests.bench $(BENCH)

soak: build ## random trouble for ten minutes (SOAK="--minutes N --seed N") and what must hold; build/soak.json
	@$(PYTHON) -m tests.soak $(SOAK)

# Nothing comes from PyPI but what requirements/ names, with the hash that it names.
PIP := --disable-pip-version-check --no-input
install: programs ## on a cluster's host: everything into PREFIX (/opt/mpsr), the plugin into PLUGIN_DIR
	@/usr/bin/python3 -m venv $(PREFIX)
	@$(PREFIX)/bin/pip install -q $(PIP) --require-hashes -r requirements/build.txt
	@$(PREFIX)/bin/pip install -q $(PIP) --require-hashes --no-build-isolation -r requirements/runtime.txt
	@$(PREFIX)/bin/pip install -q $(PIP) --no-deps --no-build-isolation .
	@$(MAKE) -s install-files
	@printf 'installed below %s, and %s\n' $(PREFIX) $(PLUGIN_DIR)/mpsr.so

programs:
	@$(MAKE) -s -C spank_plugin OUT=$(BUILD)

# All but the Python package, for `make install` and for Debian's packages, which give DESTDIR.
install-files:
	@install -D -m 755 -t $(DESTDIR)$(PREFIX)/libexec/mpsr $(BUILD)/mpsr-launch $(BUILD)/mpsr-hook $(BUILD)/mpsr-enter $(BUILD)/libmpsr-ending.so \
	    prolog_epilog/prolog prolog_epilog/epilog
	@install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/mpsr/templates/site templates/site/*
	@for part in prometheus grafana; do install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/mpsr/$$part templates/$$part/*; done
	@install -d $(DESTDIR)$(PREFIX)/share/mpsr/lmod
	@sed 's|@PREFIX@|$(PREFIX)|' templates/lmod/mpsr.lua >$(DESTDIR)$(PREFIX)/share/mpsr/lmod/mpsr.lua
	@for file in $(shell cd templates && find ansible -type f); do \
	    install -D -m 644 templates/$$file $(DESTDIR)$(PREFIX)/share/mpsr/$$file; \
	done
	@for page in docs/man/*; do install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man$${page##*.} $$page; done
	@install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/bash-completion/completions completions/mpsr
	@install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions completions/_mpsr
	@install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d completions/mpsr.fish
	@install -D -m 644 -t $(DESTDIR)$(PLUGIN_DIR) $(BUILD)/mpsr.so

deb: ## Debian packages for the Slurm release of this host, into build/deb/
	@bash debian/build.sh

rpm: ## RPMs for systems like RHEL, for the Slurm release of this host, into build/rpm/ (EL="8 9 10")
	@bash rpm/build.sh $(EL)

clean: ## remove build/ and .venv/
	@rm -rf build .venv
