# The two commands of the README and what keeps the house in order. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LABFLAGS ?= $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: lab test bench lint format clean

lab: $(VENV)/.ok  ## JupyterLab on the quickstart notebook
	$(BIN)/kernelevolve-lab lab -- $(LABFLAGS)

test: $(VENV)/.ok  ## all tests (browser tests skip where there is no Chromium)
	$(BIN)/python -m pytest $(PYTESTFLAGS)

bench: $(VENV)/.ok  ## the numbers of the README, measured on this machine
	$(BIN)/python -m tests.benchmarks

lint: $(VENV)/.ok
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/.ok
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

$(VENV)/.ok: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .ruff_cache
