# The two commands of the README are `make demo` and `make test`; both set up .venv first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
SLOW := integration or chaos or fuzz or reproduction or gpu or ray
FUZZ_SECONDS ?= 600
export OMP_NUM_THREADS ?= 1
unexport PYTHONDONTWRITEBYTECODE # hundreds of processes start here: each module is compiled once

.PHONY: help install servers demo test check format contract simulation chaos ledger-chaos integration fuzz properties gpu bench docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# Federations wait more than they work: the others fill the gaps, and give way to them.
PYTEST_REAL := $(BIN)/pytest -q -p no:randomly -m
define REAL
failed=0; $(PYTEST_REAL) 'integration and flower and not chaos' -p no:cacheprovider > .venv/flower.txt 2>&1 & flower=$$!; \
nice -n 10 $(PYTEST_REAL) 'integration and not (chaos or alone or flower)' || failed=$$?; \
wait $$flower || failed=$$?; cat .venv/flower.txt; \
$(PYTEST_REAL) 'integration and alone and not chaos' || failed=$$?; exit $$failed
endef

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found, 3.11 to 3.13 needed: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing what constraints.txt pins into .venv (once; a few minutes)"
	@$(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt -e '.[site,data,postgresql,etcd,s3,hsm,dev,deploy]'
	@$(BIN)/python -W ignore -m compileall -qq -j 0 .venv/lib || true # on every core; some packages carry templates, which are no Python
	@touch $@

# The engines' own servers, for their tests: as root, where apt is; else the tests skip.
servers: $(INSTALLED) ## Debian's servers that tests/servers.txt names
	@missing=$$(grep -v '^#' tests/servers.txt | while read -r name program; do compgen -G "$$program" > /dev/null || printf '%s ' "$$name"; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then echo "not installed: $$missing(their tests skip)"; exit 0; fi; \
	echo "installing $$missing"; export DEBIAN_FRONTEND=noninteractive; \
	{ apt-get install -yqq --no-install-recommends $$missing || { apt-get update -qq && apt-get install -yqq --no-install-recommends $$missing; }; } > .venv/servers.txt 2>&1 \
	|| echo "could not install $$missing(.venv/servers.txt says why); their tests skip"

install: $(INSTALLED) servers ## make .venv with everything that is pinned

demo: $(INSTALLED) ## a federation of real processes that loses its leader and finishes
	@$(BIN)/fedsecure demo

test: $(INSTALLED) servers ## all checks, as CI runs them
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@{ $(BIN)/lint-imports --no-cache && $(BIN)/pytest -qq --collect-only; } > .venv/contracts.txt & contracts=$$!; $(BIN)/mypy --no-error-summary; wait $$contracts || { cat .venv/contracts.txt; exit 1; }
	@$(BIN)/pytest -q -n 2 -m 'not ($(SLOW))'
	@$(REAL)

check: $(INSTALLED) ## before a commit: linters, types, import contracts, unit tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest -q -n 2 -m 'not ($(SLOW))' tests/unit

format: $(INSTALLED) ## lay the code out
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

contract: $(INSTALLED) servers ## one suite per socket, over every plug
	@$(BIN)/pytest -q tests/contract

simulation: $(INSTALLED) ## crashes after every durable step, in memory
	@$(BIN)/pytest -q tests/simulation

chaos: $(INSTALLED) servers ## ten thousand faults by seed, state machines over the engines, real processes
	@$(BIN)/pytest -q -p no:randomly -m chaos tests/chaos tests/integration tests/simulation/test_failpoints.py tests/simulation/test_load.py

ledger-chaos: $(INSTALLED) ## 1,000 random kills of sites, leaders, custodians: nothing uncharged
	@$(BIN)/pytest -q -p no:randomly -m chaos tests/simulation/test_ledger_chaos.py tests/integration/test_budget_kills.py

integration: $(INSTALLED) servers ## real processes on loopback, SIGKILL and SIGSTOP
	@$(REAL)

fuzz: $(INSTALLED) ## ten minutes of hostile bytes for every decoder and both halves of a round
	@$(BIN)/python -m tests.fuzz.roam --seconds $(FUZZ_SECONDS)

properties: $(INSTALLED) ## every property test, long and with new examples each time
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -q -m hypothesis --timeout 3600

gpu: $(INSTALLED) ## the tests that need a CUDA device; they skip without one
	@$(BIN)/pytest -q -m gpu

bench: $(INSTALLED) ## measure, and compare with plain Flower; one after the other
	@for each in experiments/benchmarks/*.py; do $(BIN)/python "$$each"; done

docs: $(INSTALLED) ## write docs/house.md from the tree
	@$(BIN)/python docs/house.py

lock: $(INSTALLED) ## write constraints.txt from what .venv holds
	@$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu$$//; s/+cu[0-9]*$$//' > constraints.txt

clean: ## remove .venv, caches and build outputs; runs/ stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
