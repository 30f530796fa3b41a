# Every verb sets up .venv first, once. `make` alone lists them.
#
#   make demo PYTHON=python3.12                                            another interpreter
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu             torch without CUDA
#
# Paths are relative throughout, so that a checkout may lie in a folder with spaces.

.DEFAULT_GOAL := help
.PHONY: help setup demo test e2e check fix evidence pup bench clean

PYTHON ?= python3
TORCH_INDEX ?=

# Where nobody chose an interpreter, a python3 that is too old gives way to a newer one beside it.
FALLBACKS := $(if $(filter file,$(origin PYTHON)),python3.13 python3.12 python3.11)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --no-input --disable-pip-version-check -c constraints.txt

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: .venv/.installed ## create .venv and install selfedit with its pinned dependencies

.venv/.installed: pyproject.toml constraints.txt
	@for python in "$(PYTHON)" $(FALLBACKS) ""; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "selfedit needs Python 3.11 or newer and '$(PYTHON)' is not: install one, or name one with PYTHON=/path/to/python3." >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "'$$python' cannot create virtual environments: install its venv module (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; \
	fi; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear .venv
ifneq ($(TORCH_INDEX),)
	$(INSTALL) --index-url "$(TORCH_INDEX)" --no-deps torch
else
	@if [ "$$(uname -s)" = Linux ] && ! $(BIN)/python -m pip show --quiet torch 2>/dev/null; then \
	    echo "On Linux the default torch wheel brings gigabytes of CUDA; without a GPU, TORCH_INDEX=https://download.pytorch.org/whl/cpu avoids it."; \
	fi
	$(INSTALL) torch
endif
	$(INSTALL) --quiet --editable '.[dev]'
	@touch $@

demo: setup ## watch the embedded model learn to study: minutes on a CPU, no download, no key
	$(BIN)/selfedit run demo --out runs/demo --device cpu

test: setup ## the default test suite: under two minutes on two cores, no network
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

e2e: setup ## the whole method end to end on CPU, in at most eight minutes
	$(BIN)/python -m pytest -m e2e

check: setup ## lint, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fix: setup ## repair what lint and formatting can repair
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

evidence: setup ## reproduce the numbers and the curve of the README into runs/evidence
	$(BIN)/selfedit run evidence --out runs/evidence --device cpu

pup: setup ## retrain the embedded model: at most two hours on two cores
	$(BIN)/python -m selfedit.recipes.pup.train

bench: setup ## time the inner loop against other ways to run it: at most ten minutes on two cores
	$(BIN)/python bench/inner_loop.py

clean: ## remove .venv, caches and builds; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
