# `make` alone lists what there is.

PYTHON := .venv/bin/python
# Virtual machines need root; the rest does not.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo env PATH="$$PATH" PYTHONDONTWRITEBYTECODE=1)
SOAK_ROUNDS ?= 10
SOAK_SEEDS ?= 50000

.PHONY: help setup demo test lint fmt bench bench-console bench-guest bench-inside bench-instant bench-replication bench-server bench-staggering soak lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install missing system packages and the virtual environment (most targets do it first)
	@scripts/install-system-packages
	@scripts/set-up-venv
	@$(PYTHON) -m compileall -q -j 2 src lab tests # hundreds of processes would each do it again

demo: setup ## back up a running virtual machine, lose it, get it back
	@$(AS_ROOT) $(PYTHON) -m demo.main_job

# Long files first, as tests/conftest.py sorts them; when a process dies, the run ends, and fails.
IN_THREE := -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: lint ## lint, then the test suite, real virtual machines included; without what is left to "make soak"
	$(AS_ROOT) $(PYTHON) -m pytest -m "not soak" $(IN_THREE) -r fERs --durations 40 --durations-min 8

lint: setup ## style, types and the order of the layers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

fmt: setup ## format and mend what can be mended by itself
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: setup ## measure against restic, kopia and borg (builds them)
	@scripts/install-system-packages --bench
	@scripts/install-bench-peers
	@$(AS_ROOT) $(PYTHON) -m benchmarks

bench-console: setup ## measure how quick the console's pages are
	@$(PYTHON) -m benchmarks.console --write

bench-guest: setup ## measure what backups do to a running virtual machine
	@$(AS_ROOT) $(PYTHON) -m benchmarks.guest

bench-inside: setup ## measure leaving out unused blocks, and reading files out of restore points
	@scripts/install-system-packages --bench
	@scripts/install-bench-peers
	@$(AS_ROOT) $(PYTHON) -m benchmarks.inside

bench-instant: setup ## measure machines that start from the repository
	@$(AS_ROOT) $(PYTHON) -m benchmarks.instant

bench-replication: setup ## measure what replication costs a guest, and how long failovers take
	@$(AS_ROOT) $(PYTHON) -m benchmarks.replication
	@$(AS_ROOT) $(PYTHON) -m benchmarks.replication_interval
	@$(AS_ROOT) $(PYTHON) -m benchmarks.replication_failover

bench-server: setup ## measure what the server costs, and how quick it answers
	@$(PYTHON) -m benchmarks.server --write

bench-staggering: setup ## simulate a week of a thousand machines
	@$(PYTHON) -m benchmarks.staggering --write

soak: setup ## the test suite SOAK_ROUNDS times over, each in another order, then longer simulations, kills and power cuts
	@for round in $$(seq $(SOAK_ROUNDS)); do \
		echo "Round $$round of $(SOAK_ROUNDS)"; $(AS_ROOT) $(PYTHON) -m pytest -q || exit 1; done
	$(AS_ROOT) env KILL_ROUNDS=50 POWER_CUTS=100 DAMAGE_SEEDS=5000 $(PYTHON) -m pytest -q --timeout 7200 \
		tests/storage/test_kill.py tests/storage/test_power_cut.py tests/simulation/test_damage.py
	$(PYTHON) -m tests.simulation --seeds $(SOAK_SEEDS)
	$(AS_ROOT) env REPLICA_KILLS=200 INTERVAL_KILL_ROUNDS=20 FAILOVER_ROUNDS=20 LEASE_SECONDS=600 GROUP_ROUNDS=20 $(PYTHON) -m pytest -q --timeout 0 \
		tests/replication/source/test_kills.py tests/replication/interval/test_killed.py \
		tests/replication/failover/test_partitions.py tests/replication/lease/test_simulation.py tests/replication/groups/test_group.py

lock: setup ## lock the newest Python packages that pyproject.toml admits
	@scripts/lock

clean: ## remove the virtual environment and all caches of this folder
	$(AS_ROOT) rm -rf .venv .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -prune -exec $(AS_ROOT) rm -rf {} +
