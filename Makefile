# Everything a developer or an administrator starts by hand. It needs make and a Python of 3.11 or later;
# the rest is put into .venv. Each set-up leaves a stamp there, so that a second call is instant, and is
# done again when setup.cfg changes.

SHELL := /bin/sh
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
LOWEST := build/lowest
ARGS ?=
# Processes that share all the tests, or a directory of them; what else is chosen by ARGS is run by one. A file's tests share agents
# and stay together, but for unit tests, which start none. Property tests draw EXAMPLES times as many examples.
DIRECTORIES := tests $(patsubst %/,%,$(wildcard tests/*/))
JOBS ?= $(if $(filter-out $(DIRECTORIES),$(ARGS:/=)),0,3)
DIST := $(if $(filter tests/unit,$(ARGS:/=)),worksteal,loadfile)
export EXAMPLES ?= 1
SEED ?= 1

# The first that is 3.11 or later and can make a virtual environment; `make PYTHON=/path/to/python …` picks another.
PYTHONS := python3.13 python3.12 python3.11 python3
FIT := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(PYTHONS); do "$$p" -c '$(FIT)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
NO_PYTHON = No Python of 3.11 or later with its venv module among: $(or $(PYTHON),$(PYTHONS)). \
            Install one (Debian: apt-get install python3-venv) or name it: make PYTHON=/path/to/python
venv = p="$(PYTHON)"; "$$p" -c '$(FIT)' >/dev/null 2>&1 || { echo "$(NO_PYTHON)" >&2; exit 1; }; \
       echo "Making $1 with $$("$$p" --version)"; "$$p" -m venv --clear $1

# Newer pips build the package in a clean room by themselves; older ones need to be told.
PIP := -m pip --disable-pip-version-check --no-input install --quiet --use-pep517

# A .venv whose python is gone (a system upgrade, a moved directory) is made anew.
USABLE := $(shell test -x $(PY) && $(PY) -c 'import pip' 2>/dev/null && echo yes)

CHROMIUM := chromium chromium-browser
HAS_CHROMIUM = for c in $(CHROMIUM); do command -v $$c >/dev/null && exit 0; done; exit 1

.DEFAULT_GOAL := help
.PHONY: help setup run demo test soak peers bench lint format lowest clean browser promtool curl remake
.PHONY: image sandbox-image base-image dist-image test-image lock

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)-run ## put the agent and what it needs into .venv

run: $(STAMP)-run ## run the agent with the settings of .env
	@exec $(VENV)/bin/relay-agent run

demo: $(STAMP)-sandbox ## show the whole way of a command, on a platform started on this machine
	@exec $(PY) -m relay_agent.sandbox.demo

test: $(STAMP)-test browser promtool ## run the tests; make test ARGS=tests/unit or ARGS='-k messages -x' chooses
	@exec $(PY) -m pytest -n $(JOBS) --dist $(DIST) --no-loadscope-reorder $(ARGS)

soak: $(STAMP)-test ## let everything around the agent fail for a minute, and count; make soak MINUTES=30 SEED=7
	@exec $(PY) -m tests.soak $(if $(SECONDS),--seconds $(SECONDS)) $(if $(MINUTES),--minutes $(MINUTES)) --seed $(SEED)

peers: $(STAMP)-test curl ## play odd peers to the agent, curl and requests; make peers COUNT=300 SEED=7 ARGS='--only redirect'
	@exec $(PY) -m tests.peers $(if $(COUNT),--count $(COUNT)) --seed $(SEED) $(ARGS)

lint: $(STAMP)-lint ## ruff, mypy strict, import-linter
	$(PY) -m ruff check --output-format concise
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo

format: $(STAMP)-lint ## put the code into the one style
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

lowest: $(LOWEST)/.installed ## run the tests with the oldest versions that setup.cfg allows
	@exec $(LOWEST)/bin/python -m pytest $(ARGS)

bench: $(STAMP)-test ## what commits, starts, age and telemetry cost, as ratios; make bench ARGS='--commands 1000000'
	@exec $(PY) -m tests.bench $(ARGS)

# --- The container (docs/install.md). BASE_IMAGE names another base; docker/tools/image.sh says which one it takes.
IMAGE = PIP_PYTHON=$(PY) BASE_IMAGE="$(BASE_IMAGE)" docker/tools/image.sh
BASE_IMAGE ?=

image: $(VENV)/.made ## build the container's image, ts-agent-http-relay:v<version>
	@$(IMAGE) agent

sandbox-image: $(VENV)/.made ## build the image of the sandbox, to try the agent with
	@$(IMAGE) sandbox

base-image: ## make the image's base from Debian packages alone, where no registry can be reached
	@docker/tools/base.sh

dist-image: image sandbox-image ## write what an administrator is handed into dist/
	@docker/tools/dist.sh

test-image: $(STAMP)-test ## build the images and test them on this machine's Docker engine
	@docker version >/dev/null 2>&1 || { echo "No Docker engine answers here: the image cannot be tested. Start one, or set DOCKER_HOST." >&2; exit 1; }
	@$(MAKE) --no-print-directory dist-image
	@exec $(PY) -m pytest tests/image $(ARGS)

lock: $(VENV)/.made ## pin what the image holds anew, from setup.cfg, with hashes
	@docker/tools/lock.sh $(PY)

clean: ## remove .venv, caches and what was built; never .env or .relay
	rm -rf $(VENV) build dist relay_agent.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find docker/wheels -name '*.whl' -delete -o -name '.for-*' -delete
	find relay_agent tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.made: $(if $(USABLE),,remake)
	@test -n "$(USABLE)" || { $(call venv,$(VENV)); }
	@touch $@

# A larger set-up holds the smaller ones, so it leaves their stamps too.
$(STAMP)-run: $(VENV)/.made setup.cfg setup.py
	@echo "Installing the agent into $(VENV)"
	@$(PY) $(PIP) -e .
	@touch $@

$(STAMP)-sandbox: $(VENV)/.made setup.cfg setup.py
	@echo "Installing the agent and the sandbox into $(VENV)"
	@$(PY) $(PIP) -e '.[sandbox]'
	@touch $(STAMP)-run $@

$(STAMP)-test: $(VENV)/.made setup.cfg setup.py
	@echo "Installing the agent, the sandbox and what the tests need into $(VENV) (a minute or two the first time)"
	@$(PY) $(PIP) -e '.[sandbox,test]'
	@touch $(STAMP)-run $(STAMP)-sandbox $@

$(STAMP)-lint: $(VENV)/.made setup.cfg setup.py
	@echo "Installing the agent, the sandbox and the checkers into $(VENV)"
	@$(PY) $(PIP) -e '.[sandbox,lint]'
	@touch $(STAMP)-run $(STAMP)-sandbox $@

# Each `name>=version` of setup.cfg becomes the constraint `name==version`.
$(LOWEST)/.installed: setup.cfg setup.py
	@$(call venv,$(LOWEST))
	@echo "Installing the oldest allowed versions into $(LOWEST)"
	@sed -n 's/^    \([A-Za-z0-9_.-]*\)>=\([0-9.]*\)\(;.*\)*$$/\1==\2/p' setup.cfg > $(LOWEST)/constraints.txt
	@$(LOWEST)/bin/python $(PIP) -c $(LOWEST)/constraints.txt -e '.[sandbox,test]'
	@touch $@

# $(call from_debian,package,name,what for): install it where that can be done; say so, and do not fail, where not.
define from_debian
sh -c ' \
	  log=$$(mktemp); trap "rm -f $$log" EXIT; export DEBIAN_FRONTEND=noninteractive; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing $(2) for $(3)"; \
	    { apt-get update && apt-get install -y --no-install-recommends $(1); } >"$$log" 2>&1 </dev/null && exit 0; \
	    tail -n 5 "$$log" >&2; \
	  fi; \
	  echo "No $(2) here: $(3) will be skipped (Debian: apt-get install $(1))" >&2'
endef

# The page tests drive Debian's Chromium; they are skipped, not failed, where there is none.
browser:
	@($(HAS_CHROMIUM)) || $(call from_debian,chromium,Chromium,the page tests)

# The differential test compares with Debian's curl. Skipped, not failed, where there is none.
curl:
	@command -v curl >/dev/null || $(call from_debian,curl,curl,the differential test)

# The alert rules are tested with Prometheus' own promtool. It is taken out of Debian's package: installed, that brings a daemon and
# fourteen packages of a web page. Skipped, not failed, where there is none.
PROMTOOL := build/tools/promtool

promtool:
	@command -v promtool >/dev/null || test -x $(PROMTOOL) || sh -c ' \
	  log=$$(mktemp); work=$$(mktemp -d); trap "rm -rf $$log $$work" EXIT; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Fetching promtool for the tests of the alert rules"; \
	    { apt-get update && mkdir -p $(dir $(PROMTOOL)) && (cd "$$work" && apt-get download prometheus) && \
	      dpkg-deb -x "$$work"/prometheus_*.deb "$$work" && mv "$$work/usr/bin/promtool" $(PROMTOOL); } >"$$log" 2>&1 </dev/null && exit 0; \
	    tail -n 5 "$$log" >&2; \
	  fi; \
	  echo "No promtool here: the tests of the alert rules will be skipped (Debian: apt-get install prometheus)" >&2'
