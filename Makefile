# Everything here sets itself up: `make demo` works in a fresh checkout.

PYTHON ?= python3
TORCH := torch==2.13.0
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: setup demo test check bench help clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY) ## Make .venv with the locked versions, or bring it up to date
	@:

# torch comes first and alone, so that pip picks the build that suits the machine.
$(READY): requirements.lock pyproject.toml Makefile
	@echo "Setting up .venv (a few minutes the first time)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(PIP) $(TORCH)
	@$(PIP) -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## Plain decoding beside speculative decoding, then programs judged in a sandbox
	@$(BIN)/floodstage demo
	@test "$$(uname)" != Linux || $(BIN)/floodstage programs demo

check: setup ## Lint, formatting, types, and the floors between rooms
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: check ## All checks, then every test that is not marked slow
	@$(BIN)/python -m pytest -q -m "not slow" --durations=10

bench: setup ## Measure what the README states and write its tables (FRESH=1 forgets earlier runs)
	@$(BIN)/python benchmarks/run.py

clean: ## Remove caches and built packages; .venv and runs stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
