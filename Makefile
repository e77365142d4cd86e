# doorward. Each target installs its dependencies, on a Debian 12 with make, git and root.
#
#   make demo       two hosts and an outsider: a roll-out, and what each of them sees (needs root)
#   make demo-down  remove all of it
#   make test       the tests; the last line counts them, and it names what it leaves to test-all (needs root)
#   make test-all   every test, those too that take long and differ little from others (needs root)
#   make check      the fast part of it: style, types, import contracts, unit tests
#   make cover      branch coverage by room; fails where a room that decides who gets in is not wholly tested
#   make tutorial   the commands of fwknop's old tutorials against doorwardd, and what each of them shows (needs root)
#   make firewalls  one line for each other firewall: how a grant fares behind it (needs root)
#   make bench      doorwardd and its peers on the same work (needs root)
#   make fuzz       every parser fuzzed, ten minutes in all (SECONDS_OF_FUZZ=600)
#   make docs       the tables of docs/configuration.md and the manual pages, from the code's own tables
#   make format     the sources in their one form: Python by ruff, Markdown by mdformat, wrapped at 100
#   make archive    the one file that the collection puts on hosts
#   make deb        the Debian packages doorward and doorward-daemon, in dist/ (needs debhelper, dh-apparmor, selinux-policy-dev)
#   make fresh-deb  in fresh Debian 12 and 13 with systemd: both packages from the installation to the purge, and
#                   docs/first-host.md as it is printed (needs root)
#   make fresh      demo twice, test and check in a fresh minimal Debian 12, from the last commit (needs root);
#                   fresh-demo, fresh-test and fresh-check are its parts
#   make sizes      lines of code by room, and of functions; COMMIT=… counts a commit
#   make lab-up     only start the hosts of the demo (needs root)

ARCHIVE := collections/ansible_collections/doorward/spa/roles/daemon/files/doorward.pyz
PYTHON := .venv/bin/python
SECONDS_OF_FUZZ := 600
# Tests and lab run from the source tree, even where the package is installed.
export PYTHONPATH := $(CURDIR)/daemon:$(CURDIR)/tests
# Thousands of processes are started: each would compile all that it imports, where the caller says so.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo demo-down fresh fresh-demo fresh-test fresh-check fresh-deb test test-all check cover sizes firewalls bench fuzz docs format archive deb lab-up lab-down venv system

help:
	@sed -n 's/^#   make/make/p' Makefile

demo: system venv archive
	@$(PYTHON) -m lab.demo

demo-down:
	@python3 -m lab down

fresh: system venv
	@$(PYTHON) tests/fresh/run.py

fresh-demo fresh-test fresh-check: system venv
	@$(PYTHON) tests/fresh/run.py --part $(subst fresh-,,$@)

fresh-deb: system venv
	@$(PYTHON) -m pytest -q -n 0 tests/fresh

test: system venv archive
	@$(PYTHON) tests/run.py all

test-all: system venv archive
	@$(PYTHON) tests/run.py whole

check: venv
	@$(PYTHON) tests/run.py check

cover: venv
	@$(PYTHON) tests/cover.py

sizes: venv
	@$(PYTHON) tests/sizes.py $(COMMIT)

firewalls: system venv
	@$(PYTHON) -m system.other_firewalls

tutorial: system venv
	@$(PYTHON) tests/tutorial/run.py

bench: system venv archive
	@$(PYTHON) bench/latency.py
	@$(PYTHON) bench/memory.py
	@$(PYTHON) bench/scale.py
	@$(PYTHON) bench/flood.py
	@$(PYTHON) bench/sequence.py
	@$(PYTHON) bench/ssh.py
	@$(PYTHON) bench/playbook.py

fuzz: venv
	@$(PYTHON) tests/fuzz/run.py --seconds $(SECONDS_OF_FUZZ)

docs: venv
	@$(PYTHON) -m documented
	@$(PYTHON) -m manuals

format: venv
	@.venv/bin/ruff format --quiet
	@$(PYTHON) tests/markdown.py

archive: venv
	@mkdir -p $(dir $(ARCHIVE))
	@$(PYTHON) -m doorward.archive $(ARCHIVE)

deb: venv
	@$(PYTHON) daemon/debian/build.py

lab-up: system venv
	@$(PYTHON) -m lab up

lab-down: demo-down

system:
	@.ci/bootstrap system

venv:
	@.ci/bootstrap venv
