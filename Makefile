# Two commands from a fresh clone: `make demo` and `make test`. Each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-slow lint bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# torch first and by exact pin: a range, or another package's wish, brings another build.
.venv/.done: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Anomaray needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --requirement requirements.lock
	touch $@

demo: .venv/.done ## two weeks of data, two detectors, one scored night, with the flags explained
	$(BIN)/python -m jobs demo --folder demo

test: .venv/.done ## everything but the slow fault tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/.done ## all tests
	$(BIN)/python -m pytest

lint: .venv/.done ## ruff, mypy strict, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.done ## rows per second and peak memory of training and scoring (FOLDER, SCALE)
	$(BIN)/python -m tests.bench.night --folder $(or $(FOLDER),demo/bench) --scale $(or $(SCALE),17.3)

clean: ## remove the environment and the demo
	rm -rf .venv demo
