# The interpreter that makes .venv, and the processes that run the tests.
PYTHON ?= python3
JOBS ?= 2
# Options of the example: make run ARGS="--n 34006"
ARGS ?=

BIN := $(CURDIR)/.venv/bin
STAMP := .venv/.installed
DEV_STAMP := .venv/.installed-dev
BENCH_STAMP := .venv/.installed-bench
TYPES := build/types

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run test check lint types format bench clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

run: $(STAMP) ## the main job: krige real data with a tiled Cholesky (ARGS="--n 34006")
	@"$(BIN)/python" examples/kriging.py $(ARGS)

test: $(DEV_STAMP) ## all tests
	@tests/system-packages
	@tests/mpich "$(BIN)/python"
	@"$(BIN)/python" -m pytest -n $(JOBS) --dist loadgroup

check: lint types test ## format, lint, types, tests

lint: $(DEV_STAMP) ## format and lint, changing nothing
	"$(BIN)/ruff" format --check .
	"$(BIN)/ruff" check .

# mypy follows no import hook, so it is shown the package as a wheel lays it out.
types: $(DEV_STAMP) ## mypy --strict on the package
	@rm -rf $(TYPES) && mkdir -p $(TYPES)/taskla
	@cd $(TYPES)/taskla && ln -s ../../../taskla/* ../../../distributions ../../../schedulers ../../../traces .
	cd $(TYPES) && "$(BIN)/mypy" --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p taskla

format: $(DEV_STAMP) ## rewrite the code as ruff has it
	"$(BIN)/ruff" check --fix --select I .
	"$(BIN)/ruff" format .

bench: $(BENCH_STAMP) ## the benchmarks against SciPy, MKL and Dask (several minutes)
	"$(BIN)/python" benchmarks/graph.py
	"$(BIN)/python" benchmarks/engine.py
	"$(BIN)/python" benchmarks/local.py
	"$(BIN)/python" benchmarks/trace.py
	"$(BIN)/python" benchmarks/replay.py

clean: ## remove what was installed, built or cached
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"taskla needs Python 3.11 or newer; $(PYTHON) is {v[0]}.{v[1]}: set PYTHON")'
	@echo "Installing into .venv (once, a minute or so)"
	@$(PYTHON) -m venv .venv
	@"$(BIN)/python" -m pip install --quiet --editable .
	@touch $@

$(DEV_STAMP): $(STAMP)
	@echo "Installing what the tests need (once, some minutes)"
	@"$(BIN)/python" -m pip install --quiet --editable '.[dev]'
	@touch $@

$(BENCH_STAMP): $(DEV_STAMP)
	@"$(BIN)/python" -m pip install --quiet --editable '.[bench,mkl]'
	@touch $@
