# Two commands set everything up on a fresh machine with Python (3.11 or later) and make:
#   make quickstart   pretrain, evaluate and picture SimCLR on an embedded data set: minutes on two cores, offline
#   make test         install what the tests need and run them
# `make docs` builds the documentation's site: build/site/index.html.
# While working on it, `make check`: lint, types and the tests of the low floors, in a minute and a half of two cores.
# PYTHON=... chooses an interpreter (the newest found unless given), VENV=... another place for the environment.

VENV ?= .venv
JAXCL := $(VENV)/bin/python -m jaxcl
# The newest Python that runs, on the path or among pyenv's (a command on the path may be an empty shim).
NEWEST := for v in 3.14 3.13 3.12 3.11; do for p in python$$v $$HOME/.pyenv/versions/$$v.*/bin/python; do \
	if $$p -c 'import sys' 2>/dev/null; then $$p -c 'import sys; print(sys.executable)'; exit; fi; done; done
PYTHON ?= $(shell $(NEWEST))

.PHONY: quickstart check test test-slow docs lint format clean

quickstart: $(VENV)/.plot
	$(JAXCL) train configs/quickstart.py --run-dir runs/quickstart
	$(JAXCL) evaluate runs/quickstart --protocol knn linear
	$(JAXCL) plot runs/quickstart

QUICK := tests/test_house.py tests/test_keys.py tests/test_memory.py tests/test_extract.py tests/test_monitor.py \
	$(addprefix tests/losses/test_,contrast.py distribution.py blockwise.py regression.py nce.py) \
	tests/nets/test_norm.py tests/train/test_optim.py tests/train/test_step.py tests/data/test_batches.py

check: lint
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile $(QUICK)

test: lint
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

# Compiled as a user's programs are; what `make test` runs is compiled quickly.
test-slow: $(VENV)/.dev
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(VENV)/bin/python -m pytest -m slow

# Strict: a broken link, or a reference to what is not there, is an error. Pictures are drawn in the first build.
docs: $(VENV)/.docs
	$(VENV)/bin/python -m sphinx -q -W --keep-going -c docs/site -d build/doctrees . build/site
	@echo "The site is in build/site/index.html."

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/python tests/gallery.py --write

# Python keeps what it compiled, also where a container says otherwise: every process would compile all of jax again.
export PYTHONDONTWRITEBYTECODE =

# Some distributions ship venv without pip; then the interpreter's own pip serves the new environment.
# uv installs in seconds what takes pip a minute. It trusts the machine's certificates, as pip does.
export UV_SYSTEM_CERTS = true
$(VENV)/bin/uv:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later was found; set PYTHON=/path/to/python."; exit 1; }
	$(PYTHON) -m venv $(VENV) || $(PYTHON) -m venv --without-pip --clear $(VENV)
	$(PYTHON) -m pip --python $(VENV)/bin/python --disable-pip-version-check install --quiet uv

# A stamp an extra, so that each is installed once, and again when the metadata changes.
$(VENV)/.plot: $(VENV)/bin/uv setup.cfg pyproject.toml
	$(VENV)/bin/uv pip install --python $(VENV)/bin/python --quiet -e '.[plot]'
	touch $@

$(VENV)/.docs: $(VENV)/bin/uv setup.cfg pyproject.toml
	$(VENV)/bin/uv pip install --python $(VENV)/bin/python --quiet -e '.[docs]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/uv setup.cfg pyproject.toml
	$(VENV)/bin/uv pip install --python $(VENV)/bin/python --quiet -e '.[dev,tfds]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist docs/figures *.egg-info
