# Each target only wraps commands that the README shows. `make test PYTHON=python3.13` picks an interpreter.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= auto

.PHONY: demo test lint format bench plots docs proto clean

demo: $(VENV)/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo/demo.sh

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(JOBS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed-dev
	$(BIN)/python bench/bench.py

plots: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python bench/plots.py

docs: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# The oldest compiler whose output every supported protobuf runtime loads; it needs a Python it has wheels for.
proto:
	$(PYTHON) -m venv build/protoc
	build/protoc/bin/pip install --quiet 'grpcio-tools==1.66.2' 'setuptools<70'
	build/protoc/bin/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. \
		castore/format/proto/castore.proto castore/format/proto/tvix_castore.proto

clean:
	rm -rf $(VENV) .demo build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "castore needs Python 3.11 or later, and none was found: try make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed
