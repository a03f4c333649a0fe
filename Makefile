# Sets itself up: needs Python 3.11 or newer, make, and PyPI.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint types fix docs bench results analyses clean

help:           ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'remind needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...'; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.demo: .venv/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

.venv/.dev: .venv/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev,postgres,ray]'
	@touch $@ .venv/.demo

.venv/.docs: .venv/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev,docs,postgres,ray]'
	@touch $@

setup: .venv/.dev  ## a virtual environment in .venv with everything to develop

demo: .venv/.demo  ## the main job: Soft MoE and REMIND on a real cohort, into demo/
	$(BIN)/remind demo --out demo

test: .venv/.dev  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-fast: .venv/.dev  ## the tests that take under ten seconds each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow'

lint: .venv/.dev  ## style, format, who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/.dev  ## pyright
	$(BIN)/pyright

fix: .venv/.dev  ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.docs  ## the documentation, into site/
	$(BIN)/zensical build --strict

bench: .venv/.dev  ## every claim about speed and size, into docs/benchmarks.md
	$(BIN)/python benchmarks/run.py

results: .venv/.dev  ## the published results, into docs/results/ (about two hours on two cores)
	$(BIN)/python benchmarks/results.py --out docs/results
	$(BIN)/python benchmarks/simulator_tail.py --out docs/results
	$(BIN)/python benchmarks/coverage.py --out docs/results

analyses: .venv/.dev  ## the published analyses, into docs/results/analyses/ (about an hour on two cores)
	$(BIN)/python benchmarks/analyses.py --out docs/results/analyses

clean:          ## remove what was built
	rm -rf .venv site build dist .pytest_cache .ruff_cache .hypothesis
