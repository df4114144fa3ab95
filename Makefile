# `make serve` and `make test` do all the set-up on a fresh machine; neither needs anything but Python and make.

PYTHON ?= python3
PORT ?= 8000
HOST ?= 127.0.0.1
MODEL ?= embedded

VENV := .venv
BIN := $(VENV)/bin

.PHONY: serve test cluster-test schema-test check audit format clean

serve: $(VENV)/installed
	exec $(BIN)/python -m deployments --model $(MODEL) --host $(HOST) --port $(PORT)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -rs

# Several Ray nodes on this machine: minutes, and a few GB of memory.
cluster-test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -rs -m "cluster and not gpu" tests/cluster tests/deployments

# Asks a service that is running for whatever its description allows and forbids, for minutes. It leaves voices called Ann.
schema-test: $(VENV)/installed-dev
	PYTHONPATH=. $(BIN)/schemathesis run http://$(HOST):$(PORT)/openapi.json

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python .ci/audit.py --report

# Fails for known vulnerabilities that a newer version mends; `check` only tells of them.
audit: $(VENV)/installed-dev
	$(BIN)/python .ci/audit.py

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# Stamps, so that set-up runs again only when what it reads has changed.
$(VENV)/installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): some minutes, in which pip says nothing ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@
