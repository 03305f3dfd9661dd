# `make demo` installs what runs the package, `make test` the development tools too, both into .venv. Each sets it up
# when it is missing, of another Python, or older than its inputs.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 \
	&& { echo $$python; break; }; done)
VERSION := $(shell $(PYTHON) -c 'import sys; print("{}.{}".format(*sys.version_info))' 2>/dev/null)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed-$(VERSION)
DEVELOP := $(VENV)/.develop-$(VERSION)
PEERS := .venv-peers
NO_PYTHON := found no Python 3.11, 3.12 or 3.13, expected one on PATH or as PYTHON=

.PHONY: demo loop test test-all parity peers paper paper-small docs lint format wheel dist extras constraints clean

demo: $(INSTALLED)
	rm -rf demo_out
	$(BIN)/usr-tf demo --out demo_out

# Three simulated days: what is served is logged, imported and trained on, and the next model ranks better.
loop: $(INSTALLED)
	rm -rf loop_out
	$(BIN)/python tools/closed_loop.py --out loop_out

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not soak"

# Also against torch-rechub. The index's PyTorch has CUDA with it, some GB; one that is in .venv already is left there.
parity: $(DEVELOP)
	$(PIP) install -c constraints.txt -e '.[parity]'
	$(BIN)/python -m benchmarks.parity

# What `python -m benchmarks.training` compares with, in an environment of its own. PyTorch is large here too.
peers: $(PEERS)/.installed

# The experiments of docs/experiments.md. What is done already under PAPER is not done again.
PAPER ?= paper_out

paper-small: $(INSTALLED)
	$(BIN)/usr-tf experiment --spec=paper --small --out=$(PAPER)/small --work=$(PAPER)/work --document=docs/results.md

paper: $(INSTALLED)
	$(BIN)/usr-tf experiment --spec=paper --out=$(PAPER)/full --work=$(PAPER)/work

# The documentation site, in site/. Broken links and missing references are errors.
docs: $(DEVELOP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(DEVELOP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEVELOP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(INSTALLED)
	$(PIP) wheel --no-deps --wheel-dir dist .

# What a package index takes: a source distribution and the wheel built from it, both checked.
dist: $(DEVELOP)
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# What each extra takes on disk: the table of BUILD.md.
extras: wheel
	$(BIN)/python tools/extras.py

# The versions that pip picks today, once setup.py asks for others.
constraints:
	$(PYTHON) tools/constraints.py python3.11 python3.12 python3.13 > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) $(PEERS) demo_out loop_out paper_out build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(INSTALLED): setup.py constraints.txt
	@test -n "$(VERSION)" || { echo "$(NO_PYTHON)" >&2; exit 2; }
	@echo "Installing usr_tf and its dependencies for Python $(VERSION) into $(VENV)"
	$(PYTHON) -m venv $(if $(wildcard $@),,--clear) $(VENV)
	$(PIP) install -c constraints.txt -e '.[train,pipelines,baseline]'
	touch $@

$(DEVELOP): $(INSTALLED)
	$(PIP) install -c constraints.txt -e '.[dev]'
	@# What it asks for is an old TensorFlow, and a module that Python has had since 3.7; it needs neither.
	$(PIP) install --no-deps deep-rec-kit==1.0.2
	touch $@

$(PEERS)/.installed: benchmarks/training/peers/constraints.txt
	@test -n "$(VERSION)" || { echo "$(NO_PYTHON)" >&2; exit 2; }
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -c $< \
		deepctr keras scikit-learn tensorflow tf_keras torch torch-rechub
	touch $@
