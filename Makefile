# Everything runs from a checkout; `make setup` as root on Debian 12 or newer is the only preparation.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
WORKERS ?= 2
TESTS ?= tests
PYTEST_ARGS ?=
PYTEST := $(BIN)/python -m pytest
BENCHES = $(wildcard bench/bench_*.py)

.PHONY: help setup dev criu etcd run service down test test-long test-vm coverage lint fmt lock reference bench

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## Install what is missing: system packages, .venv from the lock, .venv/bin/vectl, criu
	@.ci/setup
	@timeout 120 .ci/criu || echo 'setup: no suspend and no live migration on this host until `make criu` succeeds' >&2

dev: setup ## Install what tests and linters need as well
	@.ci/setup dev
	@timeout 120 .ci/etcd || echo 'dev: no tests of a fleet on this host until `make etcd` succeeds' >&2

criu: ## Put a new enough criu into VECTL_LIB where the host's is too old
	@.ci/criu

etcd: ## Put a new enough etcd into VECTL_LIB where the host's is too old, for tests
	@.ci/etcd

run: setup ## Reconcile desired/ on this host, in the foreground
	$(BIN)/vectl agent --source desired/

service: setup ## Put a systemd unit for the agent into place; it reads /etc/vectl/config.yaml
	sed 's|@BIN@|$(abspath $(BIN))|' reconciler/agent/vectl.service > /etc/systemd/system/vectl.service
	systemctl daemon-reload

down: setup ## Remove everything that `make run` made
	$(BIN)/vectl down --yes

test: dev lint ## Linters and all tests that need neither long nor a guest
	$(PYTEST) $(TESTS) -m 'not long and not vm' -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

test-long: dev ## Only the long tests: fuzzing, soak, crash matrices
	$(PYTEST) $(TESTS) -m 'long and not vm' --timeout 3600 -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

test-vm: dev ## Only the tests on Debian guests with kernels of their own
	$(PYTEST) $(TESTS) -m 'vm or vm_smoke' --timeout 3600 $(PYTEST_ARGS)

coverage: export COVERAGE_FILE := .cache/coverage
coverage: dev ## Branch coverage of the deciding rooms by the unit tests and cases
	@mkdir -p .cache
	$(BIN)/coverage run --branch --source=reconciler.model,reconciler.plan -m pytest tests/unit tests/cases -q
	$(BIN)/coverage report --show-missing --skip-covered

lint: dev ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: dev ## Format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: dev ## Write the locks from pyproject.toml; UPGRADE=1 takes newer versions
	@.ci/lock $(if $(UPGRADE),--upgrade)

reference: dev ## Write the schemas and the README's field reference from the code
	$(BIN)/python -m reconciler.manifests.schema schemas
	$(BIN)/python -m reconciler.cli.reference README.md

bench: dev ## Run the benchmarks
	@$(if $(BENCHES),,echo 'bench: there is no bench/bench_*.py' >&2; exit 1)
	@for bench in $(basename $(notdir $(BENCHES))); do echo "== $$bench"; $(BIN)/python -m "bench.$$bench"; done
