# make demo   see it work: installs what it needs, builds, runs the whole path on synthetic cells (no torch)
# make test   the test suite, with everything it compares against (installs torch)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CPP    := $(shell find cpp -name '*.[ch]pp' 2>/dev/null)
BUILD  := CMakeLists.txt pyproject.toml $(wildcard cmake/*) $(CPP)
SHORT  ?=

.PHONY: demo test install lint format bench demo-model prove-tapes clean help

demo: $(VENV)/.cpu
	$(BIN)/chammi-fast demo --out demo

test: $(VENV)/.all
	$(BIN)/pytest -q

install: $(VENV)/.all

help:
	@sed -n 's/^# make/make/p' Makefile

# Two depths of installation; each is repeated when the C++ sources or the build change.
$(VENV)/.cpu: $(BUILD) | $(VENV)/bin/python
	@if [ ! -e $(VENV)/.all ]; then $(BIN)/python -m pip install -q -e '.[cpu]'; else $(MAKE) $(VENV)/.all; fi
	@touch $@

$(VENV)/.all: $(BUILD) | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -e '.[all-cpu,train]' --group test --group peers --group lint
	@touch $@ $(VENV)/.cpu

$(VENV)/bin/python:
	@scripts/system-packages $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'

# make lint   every linter, warnings as errors
lint: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd benchmarks && ../$(BIN)/mypy --config-file ../pyproject.toml .
	$(BIN)/lint-imports --no-logo
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	scripts/clang-tidy $(BIN)

format: $(VENV)/.all
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .
	$(BIN)/clang-format -i $(CPP)

# make bench  the benchmark suites, peers measured in the same run (SHORT=1: minutes less, for CI)
bench: $(VENV)/.all
	$(BIN)/pytest benchmarks -q $(if $(SHORT),--short) --benchmark-json=build/benchmark.json

# make demo-model  train the packaged demo network again (about ten minutes on two cores)
demo-model: $(VENV)/.all
	$(BIN)/python scripts/train_demo_model.py

# make clean  remove everything that make made
clean:
	rm -rf $(VENV) build dist demo .pytest_cache benchmarks/.pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
