# Two commands do everything: `make demo` and `make test`. Both make .venv on the way.

PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint types contracts tests torture clean

demo: .venv/daemon-installed
	$(BIN)/hrtemd demo

test: lint types contracts tests

lint: .venv/everything-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/everything-installed
	$(BIN)/mypy

contracts: .venv/everything-installed
	$(BIN)/lint-imports

tests: .venv/everything-installed
	$(BIN)/pytest

# The full form takes hours; each row leaves its result in runs/torture, so that what is there is not run again.
torture: .venv/everything-installed
	$(BIN)/python -m tests.torture

clean:
	rm -rf .venv

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

.venv/daemon-installed: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

.venv/everything-installed: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(PIP) --editable '.[trainer,dev]'
	touch $@ .venv/daemon-installed
