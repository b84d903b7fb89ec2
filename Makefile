# Everything a contributor types. All targets make their own virtual environment first;
# a second call is quick, because the environment is only touched again when
# pyproject.toml changes.
#
#   VENV=DIR      where the environment lies      (default .venv)
#   PYTHON=PROG   the Python to make it from      (default: the first >= 3.11 found)
#   OUT=DIR       where `make demo` writes        (default demo-output)
#   ARGS='...'    more arguments for pytest or the benchmarks

VENV ?= .venv
PYTHON ?=
OUT ?= demo-output
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
# Tests open windows, on a display that nobody sees.
PYTEST := sh tools/with-display.sh $(BIN)/python -m pytest

# What is installed is recorded beside it, so deleting the environment resets both.
RUNTIME := $(VENV)/.installed-runtime
DEVELOP := $(VENV)/.installed-develop

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format bench build clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' \
		$(firstword $(MAKEFILE_LIST))

demo: $(RUNTIME) ## segment a synthetic micrograph; figure and table in $(OUT)
	$(BIN)/alibi-seg demo --out "$(OUT)"

test: $(DEVELOP) ## run all tests that need neither network nor GPU
	$(PYTEST) -m "not network and not gpu" -n 2 --dist loadgroup $(ARGS)

lint: $(DEVELOP) ## check style, types and import directions; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEVELOP) ## format, and mend what ruff can mend safely
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEVELOP) ## measure speed, memory and agreement (minutes); see benchmarks/
	$(BIN)/python benchmarks/run.py $(ARGS)

build: $(DEVELOP) ## sdist and wheel in dist/
	$(BIN)/python -m build

clean: ## delete what make made, not the demo's output
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache

# pip 25.1 is the first that knows dependency groups.
$(BIN)/python:
	@python="$$(sh tools/find-python.sh "$(PYTHON)")" && \
		echo "$$python -m venv $(VENV)" && "$$python" -m venv "$(VENV)"
	$(PIP) install --quiet --upgrade "pip>=25.1"

# One command for everything: torch and torchvision must be resolved as a pair.
$(RUNTIME): pyproject.toml | $(BIN)/python
	$(PIP) install --editable .
	@touch $@

$(DEVELOP): pyproject.toml | $(BIN)/python
	$(PIP) install --editable . --group dev
	@touch $(RUNTIME) $@
