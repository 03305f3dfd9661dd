# `make demo` and `make test` set up .venv when it is missing or older than its inputs, then run.

PYTHON ?= $(shell for python in python3.11 python3.12 python3 python; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' >/dev/null 2>&1 \
	&& { echo $$python; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := .venv-peers

.PHONY: demo test test-all parity peers paper paper-small lint format wheel constraints clean

demo: $(INSTALLED)
	rm -rf demo_out
	$(BIN)/usr-tf demo --out demo_out

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not soak"

# Also against torch-rechub. The index's PyTorch has CUDA with it, some GB; one that is in .venv already is left there.
parity: $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[parity]'
	$(BIN)/python -m benchmarks.parity

# What `python -m benchmarks.training` compares with, in an environment of its own. PyTorch is large here too.
peers: $(PEERS)/.installed

# The experiments of docs/experiments.md. What is done already under PAPER is not done again.
PAPER ?= paper_out

paper-small: $(INSTALLED)
	$(BIN)/usr-tf experiment --spec=paper --small --out=$(PAPER)/small --work=$(PAPER)/work --document=docs/results.md

paper: $(INSTALLED)
	$(BIN)/usr-tf experiment --spec=paper --out=$(PAPER)/full --work=$(PAPER)/work

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(INSTALLED)
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

# The versions that pip picks today, once setup.py asks for others.
constraints:
	$(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/pip install -e '.[dev]'
	{ sed -n 1p constraints.txt; $(VENV)-constraints/bin/pip freeze --exclude-editable; } > constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV)-constraints

clean:
	rm -rf $(VENV) $(PEERS) demo_out paper_out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

$(INSTALLED): setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "found no Python 3.11 or 3.12, expected one on PATH or as PYTHON=" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# What it asks for is an old TensorFlow, and a module that Python has had since 3.7; it needs neither.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps deep-rec-kit==1.0.2
	touch $@

$(PEERS)/.installed: benchmarks/training/peers/constraints.txt
	@test -n "$(PYTHON)" || { echo "found no Python 3.11 or 3.12, expected one on PATH or as PYTHON=" >&2; exit 2; }
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -c $< \
		deepctr keras scikit-learn tensorflow tf_keras torch torch-rechub
	touch $@
