# What a newcomer runs. Everything lands in .venv and .cache; the cluster's root file systems in /var/cache/berth-testbed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# A half that neither ends nor fails is ended, and shows what it had seen by then.
RUN    := timeout --foreground --signal=INT --kill-after=60 45m $(BIN)/python -m pytest --durations=12
# A busy machine can fail a test of timing: what failed is shown, and gets one more try on its own before it counts.
define twice
	$(1) || { echo "berth: FAILED once, see above; one more try of what failed"; $(1) --last-failed; }
endef

# Tests of real clusters wait most of the time, so they run beside those that keep the cores busy and yield them.
define side-by-side
	@echo "berth: tests on real clusters, shown here, and all others, shown when they have ended (.cache/here.log)"
	@mkdir -p .cache; $(MAKE) --no-print-directory --jobs=2 here on-clusters WHICH="$(1)"
endef

.DEFAULT_GOAL := help
.PHONY: help demo test test-full here on-clusters lint bench up down clean packages kubernetes

help:           ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

demo: $(VENV)/.server   ## one container job from REST to a real Slurm cluster and back (without root: on this machine)
	@$(BIN)/python -m testbed.demo

test: kubernetes $(VENV)/.test packages lint   ## everything but the long campaigns
	$(call side-by-side,not slow)

test-full: kubernetes $(VENV)/.test packages   ## the long campaigns: crash test, fuzzing, the Slurm matrix
	$(call side-by-side,slow)

here:
	@{ $(call twice,nice $(RUN) -o cache_dir=.cache/pytest-here -m "not testbed and $(WHICH)" -n 2 --dist worksteal tests); \
	} > .cache/here.log 2>&1; ended=$$?; cat .cache/here.log; exit $$ended

# The long ones bring up clusters of their own, file by file, and two of them do not get in each other's way.
on-clusters:
	@$(call twice,$(RUN) -v -o cache_dir=.cache/pytest-clusters -m "testbed and $(WHICH)" $(if $(filter-out slow,$(WHICH)),,-n 2 --dist loadfile) tests)

lint: $(VENV)/.test     ## style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=client:. $(BIN)/lint-imports

bench: $(VENV)/.test packages       ## figures side by side with a peer or a limit
	$(BIN)/python -m bench

up: $(VENV)/.server     ## the demo's cluster and server, left running to play with
	@$(BIN)/python -m testbed.demo --keep

down:           ## end what `make up` left running
	@$(PYTHON) -m testbed.demo --down

clean: down     ## remove the environment and caches of this folder
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .hypothesis

packages:
	@testbed/packages.sh test

# Compiled once, in the background: the tests that need it come late, and wait for it.
kubernetes:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then $(PYTHON) -m testbed k8s build --background; fi

$(VENV)/.python:
	@testbed/packages.sh python
	$(PYTHON) -m venv $(VENV)
	@touch $@

INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

$(VENV)/.server: $(VENV)/.python pyproject.toml client/pyproject.toml constraints.txt
	@echo "berth: installing the server into $(VENV) (about a minute the first time)"
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then $(PYTHON) -m testbed rootfs --background; fi
	@$(INSTALL) --editable client --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.server
	@echo "berth: installing the test tools into $(VENV)"
	@$(INSTALL) --editable '.[test]' --editable client
	@touch $@
