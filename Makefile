# Two commands need nothing but Python 3.11+ and make:
#   make figures   every experiment at its `paper` preset into results/, ending with the report results/index.html
#   make test      linting, the type checker and the whole test suite
# PYTHON chooses the interpreter (make test PYTHON=python3.12); VENV the folder of the virtual environment; WORKERS the
# number of processes of `make figures` (the number of cores that it may use).
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
BIN := $(VENV)/bin
# A process a core, a file of tests at a time, in the order that tests/conftest.py gives.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: figures atlas language test types tests latest coverage gpu-check notebooks readme clean

figures: $(VENV)/installed
	$(BIN)/ssa-theory run all --preset paper --workers $(WORKERS) --out results

# Every mechanism of the registry on every problem; what `make figures` trained of it is not trained again.
atlas: $(VENV)/installed
	$(BIN)/ssa-theory run atlas --preset large --name all --workers $(WORKERS) --out results

# The experiment on language models, apart as it takes minutes more; then the report with it.
language: $(VENV)/installed
	$(BIN)/ssa-theory run language --preset paper --workers $(WORKERS) --out results

test: $(VENV)/installed
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/ruff check --no-cache .
	$(MAKE) --no-print-directory --jobs 2 types tests

types: $(VENV)/installed
	$(BIN)/basedpyright --pythonpath $(BIN)/python

tests: $(VENV)/installed
	$(BIN)/pytest $(PARALLEL)

# The tests with the newest version of every dependency, in an environment of its own.
latest:
	$(PYTHON) -m venv $(VENV)-latest
	$(VENV)-latest/bin/pip install --quiet --disable-pip-version-check --upgrade --editable '.[dev]'
	$(VENV)-latest/bin/pytest $(PARALLEL)

# Which lines of the mechanism and the tasks their tests run; fewer than 95 % is an error.
coverage: $(VENV)/installed
	$(BIN)/pytest -q $(PARALLEL) tests/tasks tests/ssa_theory tasks ssa_theory --cov=tasks --cov=ssa_theory --cov-report=term-missing:skip-covered --cov-fail-under=95

# On a machine with a GPU: the tests that need one, and the benchmark on it, into gpu-check.md, with card and figures.
gpu-check: $(VENV)/installed
	$(BIN)/python -m analysis.bench.gpu_check

# Executes the notebooks' percent sources and stores them with their output.
notebooks: $(VENV)/installed
	$(BIN)/jupytext --quiet --to ipynb notebooks/[0-9]*.py
	$(BIN)/jupyter-execute --inplace notebooks/[0-9]*.ipynb

# Fills the README's generated parts from the results of `make figures` and from the benchmark with all its peers.
readme: figures
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,jax]'
	$(BIN)/ssa-theory bench --models 1000000 --out results
	$(BIN)/python -m analysis.report.readme results

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ssa_theory needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.12"; exit 2; }
	@echo "Installing into $(VENV), once: a few minutes ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-latest results
