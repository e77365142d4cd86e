# doorward. Everything installs by itself what it needs, on a Debian 12 with make, git and root.
#
#   make demo       two hosts and an outsider: a roll-out, and what each of them sees (needs root)
#   make demo-down  remove all of it
#   make test       every test there is, with their counts in the last line (needs root)
#   make check      the fast part of it: style, types, import contracts, unit tests
#   make tutorial   the commands of fwknop's old tutorials against doorwardd, and what each of them shows (needs root)
#   make bench      doorwardd and its peers on the same work (needs root)
#   make fuzz       every parser fuzzed, ten minutes in all (SECONDS_OF_FUZZ=600)
#   make docs       the tables of docs/configuration.md, from the code's own
#   make archive    the one file that the collection puts on hosts
#   make fresh      `make demo` twice in a fresh minimal Debian 12, from the last commit (needs root)
#   make lab-up     only start the hosts of the demo (needs root)

ARCHIVE := collections/ansible_collections/doorward/spa/roles/daemon/files/doorward.pyz
PYTHON := .venv/bin/python
SECONDS_OF_FUZZ := 600
# The tests and the lab run from the source tree, whatever else is installed.
export PYTHONPATH := $(CURDIR)/daemon:$(CURDIR)/tests
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help demo demo-down fresh test check bench fuzz docs archive lab-up lab-down venv system

help:
	@sed -n 's/^#   make/make/p' Makefile

demo: system venv archive
	@$(PYTHON) -m lab.demo

demo-down:
	@python3 -m lab down

fresh: system venv
	@$(PYTHON) tests/fresh/run.py

test: system venv archive
	@$(PYTHON) tests/run.py all

check: venv
	@$(PYTHON) tests/run.py check

tutorial: system venv
	@$(PYTHON) tests/tutorial/run.py

bench: system venv archive
	@$(PYTHON) bench/latency.py
	@$(PYTHON) bench/memory.py
	@$(PYTHON) bench/scale.py
	@$(PYTHON) bench/flood.py

fuzz: venv
	@$(PYTHON) tests/fuzz/run.py --seconds $(SECONDS_OF_FUZZ)

docs: venv
	@$(PYTHON) -m documented

archive: venv
	@mkdir -p $(dir $(ARCHIVE))
	@$(PYTHON) -m doorward.archive $(ARCHIVE)

lab-up: system venv
	@$(PYTHON) -m lab up

lab-down: demo-down

system:
	@.ci/bootstrap system

venv:
	@.ci/bootstrap venv
