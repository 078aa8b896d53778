# make bench: the leaderboard on the embedded data.   make test: lint, type checks, tests.   make docs: tables of the pages written anew.
# make smoke: a small matrix on the embedded data, its table and claims.   make tracks: asv's deterministic benchmarks.
# make site: the leaderboard of the committed records, in results/local/site.
# Each sets up .venv first.
PYTHON ?= python3
# Processes that tests run in; each takes up to 1 GB of memory.
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready
SMOKE := results/local/smoke
EMBEDDED := static/digits,events/digits-saccade,detection/digit-scenes,sequences/digits-pixels

.PHONY: bench test lint docs smoke tracks site clean

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

smoke: $(READY)
	$(BIN)/spikebench run -t $(EMBEDDED) -m stbp,ottt,psn --set epochs=2 --jobs 2 --results $(SMOKE)
	$(BIN)/spikebench table --results $(SMOKE) --format github
	$(BIN)/spikebench claims --results $(SMOKE) -m ottt,psn --format github

tracks: $(READY)
	test -f ~/.asv-machine.json || $(BIN)/asv machine --yes
	$(BIN)/asv run -E existing:$(BIN)/python --bench '^tracks\.' --dry-run

site: $(READY)
	$(BIN)/spikebench site --results results/reference --output results/local/site

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "spikebench needs Python 3.11 or newer; set PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $(READY)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .asv .benchmarks
