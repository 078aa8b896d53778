# make bench: the leaderboard on the embedded data.   make test: lint, type checks, tests.   make docs: tables of the pages written anew.
# Each sets up .venv first.
PYTHON ?= python3
# Processes that tests run in; each takes up to 1 GB of memory.
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready

.PHONY: bench test lint docs clean

bench: $(READY)
	$(BIN)/spikebench bench

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	env -u SPIKEBENCH_DATA $(BIN)/python -m harness.report.embed README.md docs/*.md

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "spikebench needs Python 3.11 or newer; set PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $(READY)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
