# Everything runs in .venv, which the first target that needs it sets up. Needs Python 3.11 or newer.
PYTHON ?= python3
SHELL := /bin/bash
BIN := .venv/bin

.PHONY: help run test check docs bench differential simulation cuts crashes fuzz adversary soak wheel clean
.DELETE_ON_ERROR:

help:
	@echo "make run     two hubs, a repeater and a simulated building; shows events as they arrive; Ctrl-C stops all"
	@echo "make test    every test"
	@echo "make check   ruff (lint and format) and mypy --strict"
	@echo "make docs    write docs/settings.md from the declarations of the settings"
	@echo "make bench   measure, and compare with nats-server and mosquitto (Debian packages); takes a while"
	@echo "make differential   a million byte streams through the fast way and through Autobahn's; takes longer"
	@echo "make simulation     a hundred thousand sessions over lossy links and a million topologies under faults, simulated; hours"
	@echo "make cuts    a thousand faults for real processes under traffic, up to three at a time, five ways; judge events"
	@echo "make crashes kill hubs, stop a consumer, send a burst, let 2,000 clients come back at once, dial hubs that are not there"
	@echo "make fuzz    a million hostile inputs to a real hub and a real repeater; some minutes"
	@echo "make adversary   attack a hub and a repeater in twenty ways for MINUTES=10, beside clients that must not feel it"
	@echo "make soak    HOURS=1 of a mesh of hubs under faults, restarts and guests: nothing lost, no memory grown"
	@echo "make wheel   build the wheel and check it in a fresh environment"
	@echo "make clean   remove .venv and what was built"

run: .venv/.run
	@exec $(BIN)/ces demo

test: .venv/.test
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.run
	$(BIN)/python -m ces.tap.reference docs/settings.md

bench: .venv/.run
	$(BIN)/python -m benchmarks

differential: .venv/.test
	$(BIN)/python -m tests.stress.differential 1000000 $$RANDOM

simulation: .venv/.test
	$(BIN)/python -m tests.stress.simulation 100000 $$RANDOM
	$(BIN)/python -m tests.stress.topologies 1000000 $$RANDOM

cuts: .venv/.test
	$(BIN)/python -m tests.stress.cuts messenger 1000 $$RANDOM
	$(BIN)/python -m tests.stress.cuts repeater 1000 $$RANDOM
	$(BIN)/python -m tests.stress.cuts target 1000 $$RANDOM
	$(BIN)/python -m tests.stress.cuts hub 1000 $$RANDOM
	$(BIN)/python -m tests.stress.cuts consumer 1000 $$RANDOM

crashes: .venv/.test
	$(BIN)/python -m tests.stress.crashes hub 50
	$(BIN)/python -m tests.stress.crashes slow 60
	$(BIN)/python -m tests.stress.crashes burst 100000
	$(BIN)/python -m tests.stress.crashes herd 2000
	$(BIN)/python -m tests.stress.crashes backoff 60

fuzz: .venv/.test
	$(BIN)/python -m tests.stress.fuzz 1000000 $$RANDOM

MINUTES ?= 10
adversary: .venv/.test
	$(BIN)/python -m tests.stress.adversary $(MINUTES) $$RANDOM

HOURS ?= 1
soak: .venv/.test
	$(BIN)/python -m tests.stress.soak $(HOURS) $$RANDOM

wheel: .venv/.dev
	rm -rf dist build
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python tests/check_wheel.py dist/*.whl

clean:
	rm -rf .venv build dist *.egg-info

# An editable install: edits take effect at once, and twistd sees the plugin (setup.cfg says how). By PEP 517, since
# an old pip would otherwise run setup.py with whatever setuptools there is.
.venv/.run: setup.cfg | .venv/bin/python
	$(BIN)/python -m pip install --quiet --use-pep517 --editable .
	@touch $@

.venv/.test: setup.cfg | .venv/bin/python
	$(BIN)/python -m pip install --quiet --use-pep517 --editable '.[test]'
	@touch $@ .venv/.run

.venv/.dev: setup.cfg | .venv/bin/python
	$(BIN)/python -m pip install --quiet --use-pep517 --editable '.[test,dev]'
	@touch $@ .venv/.test .venv/.run

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "CES needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "This Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
