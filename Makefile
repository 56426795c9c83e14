# One command is the truth: `make check`. Everything here works from a fresh clone with only Python 3.11+ and make.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON3 ?= python3
UV := .tools/bin/uv
PYTHON := .venv/bin/python
SOURCES := services inkling tools examples benchmarks tests hatch_build.py
PROTOS := $(shell find protos -name '*.proto')

.PHONY: help setup protos up demo test test-slow test-all check lint types imports protolint bench lock clean

help: ## What there is to type
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: .venv/.ready protos ## Make the environment (.venv) from the lock file

# uv lives apart from the environment that it makes.
$(UV):
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Inkling needs Python 3.11 or newer")'
	@$(PYTHON3) -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check uv

.venv/.ready: requirements.lock pyproject.toml hatch_build.py tools/protos.py | $(UV)
	@test -x $(PYTHON) || $(UV) venv --quiet --python $(PYTHON3) .venv
	@$(UV) pip sync --quiet --python $(PYTHON) --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .
	@touch $@

protos: .venv/.protos ## Generate the Python stubs from protos/

.venv/.protos: $(PROTOS) .venv/.ready
	@$(PYTHON) tools/protos.py
	@touch $@

up: setup ## Start the services on this machine (Ctrl-C stops them)
	@.venv/bin/inkling up

demo: setup ## Real transactions in, exact attributes out: the main job in under three minutes
	@$(PYTHON) -m examples.demo

test: setup ## The tests, with real servers and databases
	@$(PYTHON) -m pytest -m "not slow"

test-slow: setup ## The slow suites: what holds while everything is killed; the whole demo
	@$(PYTHON) -m pytest -m slow

test-all: setup ## All tests, the properties with a thousand random examples each
	@INKLING_HYPOTHESIS_PROFILE=deep $(PYTHON) -m pytest

check: setup lint types imports protolint test ## Everything that must hold before a change is done

lint: setup
	@.venv/bin/ruff check $(SOURCES)
	@.venv/bin/ruff format --check $(SOURCES)

types: setup
	@.venv/bin/mypy

imports: setup
	@.venv/bin/lint-imports

protolint: setup
	@$(PYTHON) tools/protos.py .venv/protos.binpb
	@.venv/bin/buf lint .venv/protos.binpb --config protos/buf.yaml

bench: setup ## The figures, each beside its floor
	@$(PYTHON) -m benchmarks

lock: $(UV) ## Resolve the dependencies anew into requirements.lock
	@$(UV) pip compile --quiet pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --output-file requirements.lock

clean: ## Remove environments, caches and local data
	@rm -rf .venv .tools .data .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
