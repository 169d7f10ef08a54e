# Two commands for a newcomer: `make serve` and `make test`. Both make what they need in .venv first.
# Stamp files keep a second call fast; the dev stamp stands on the base stamp, so `make -j` is safe.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
WORK ?= runs/backbone
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off
BASE := $(VENV)/.installed-base
DEV := $(VENV)/.installed-dev
TRAIN := $(VENV)/.installed-train
PEERS := .venv-peers
SYSTEM := $(VENV)/.installed-system
LOG := $(VENV)/install.log

# One thread per library unless the caller says otherwise: tests share the machine's cores.
test check: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
# pip talks a lot: all of it goes to the log, and its end is shown when something went wrong.
define install
@echo "installing $(1), log in $(LOG)"
@$(PIP) -e $(2) >$(LOG) 2>&1 || { tail -n 20 $(LOG) >&2; exit 1; }
@touch $@
endef

.PHONY: help venv serve cluster test check lint scan audit fuzz bench peers chaos soak backbone clean docs
.DELETE_ON_ERROR:

help:
	@echo "make serve     install into $(VENV) and start the service on http://$(HOST):$(PORT)"
	@echo "make cluster   front ends and workers on a local Ray cluster, with a Redis that forgets"
	@echo "make test      ruff, mypy and all tests"
	@echo "make check     the same as make test"
	@echo "make lint      ruff and mypy only"
	@echo "make scan      static rules for security (part of make test)"
	@echo "make audit     installed packages against known advisories (online)"
	@echo "make fuzz      made-up input for FUZZ_SECONDS (60)"
	@echo "make docs      the documentation as a site, in build/docs"
	@echo "make bench     the benchmarks (hours; QUICK=--quick: minutes), kept in BENCH_OUT"
	@echo "make peers     other model servers, for the benchmarks, in an environment of their own"
	@echo "make chaos     kill -9 at random moments, ROUNDS times (50), and a look at what is left"
	@echo "make soak      SOAK_SECONDS (1800) of mixed traffic on caches of SOAK_CACHES (1) MiB, OVERLOAD_SECONDS (600) of twice what can be served"
	@echo "make backbone  build the bundled backbone again (DATA=folder)"
	@echo "make venv      the virtual environment only"
	@echo "make clean     remove the virtual environment and caches"

venv: $(BASE)

$(BIN)/python:
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(BASE): pyproject.toml | $(BIN)/python
	$(call install,the service (a few minutes the first time: torch is large),.)

$(DEV): $(BASE)
	$(call install,the test tools,'.[dev]')

$(TRAIN): $(BASE)
	$(call install,the training tools,'.[train]')

# The page tests drive a Chromium, the monitoring tests a Prometheus. As root on Debian both are installed; elsewhere
# those tests skip and say so, except in CI (CI=true), where what is missing is a failure.
# Redis with TLS and Sentinels needs the system's redis-server: the wheel's server is built without TLS.
$(SYSTEM): | $(BIN)/python
	@lacks=""; \
	{ command -v chromium-headless-shell || command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null 2>&1 || lacks="chromium fonts-liberation curl"; \
	{ command -v prometheus && command -v promtool; } >/dev/null 2>&1 || lacks="$$lacks prometheus"; \
	{ command -v redis-server && command -v redis-sentinel; } >/dev/null 2>&1 || lacks="$$lacks redis-server redis-sentinel openssl"; \
	if [ -z "$$lacks" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "installing for the tests: $$lacks"; \
		{ apt-get update -qq; for name in $$lacks; do DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$name || echo "$$name failed"; done; } >$(VENV)/apt.log 2>&1; \
		! grep -q " failed$$" $(VENV)/apt.log || echo "not all could be installed ($(VENV)/apt.log): tests that need it will be skipped, or fail in CI" >&2; \
	else echo "missing: $$lacks; tests that need it will be skipped" >&2; fi
	@touch $@

serve: $(BASE)
	@exec $(BIN)/selftpt serve --host $(HOST) --port $(PORT)

cluster: $(DEV)
	@exec $(BIN)/python -m benchmarks.local_cluster --host $(HOST) --port $(PORT)

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Static rules for security (bandit's, in ruff). What is ignored per file was read: table names are constants, 0.0.0.0 is
# only shown, a counter's name is no password.
scan: $(DEV)
	$(BIN)/ruff check --select S --ignore S101,S311,S603,S607 --per-file-ignores \
		"service/stores/sqlite.py:S608,service/commands/serve.py:S104,service/stores/lease_scripts.py:S105" \
		adapters service benchmarks

# Needs the internet: asks the advisory database about what is installed.
audit: $(DEV)
	@$(PIP) --quiet pip-audit >$(LOG) 2>&1 && $(BIN)/python -m pip_audit --skip-editable --progress-spinner off; code=$$?; \
	if [ $$code -ne 0 ] && ! $(BIN)/python -c 'import socket; socket.create_connection(("pypi.org", 443), 5)' 2>/dev/null; then \
		echo "SKIPPED: pip-audit needs pypi.org, which cannot be reached from here" >&2; \
	else exit $$code; fi

# Made-up input for the decoders, stored bytes and texts; coverage-guided where atheris is installed (pip install atheris).
FUZZ_SECONDS ?= 60
fuzz: $(DEV)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

test: lint scan $(DEV) $(SYSTEM)
	$(BIN)/python -m pytest

check: test

docs: $(DEV)
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs build/docs
	@echo "open build/docs/index.html"

# Goes on where it was; QUICK=--quick is a smoke test of a few minutes. Without `make peers` the comparison with other
# servers says which are missing.
BENCH_OUT ?= runs/bench
bench: $(DEV)
	$(BIN)/python -m benchmarks $(QUICK) --out $(BENCH_OUT)

peers:
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@echo "installing other servers into $(PEERS) (a few minutes), log in $(PEERS)/install.log"
	@$(PEERS)/bin/python -m pip install --disable-pip-version-check --progress-bar off -e . -r benchmarks/peers/requirements.txt >$(PEERS)/install.log 2>&1 || { tail -n 20 $(PEERS)/install.log >&2; exit 1; }

# Both bounded in time and count, on loopback only, in data directories that are removed.
ROUNDS ?= 50
chaos: $(DEV)
	$(BIN)/python -m benchmarks.chaos --rounds $(ROUNDS)

SOAK_SECONDS ?= 1800
SOAK_CACHES ?= 1
OVERLOAD_SECONDS ?= 600
soak: $(DEV)
	$(BIN)/python -m benchmarks.soak --seconds $(SOAK_SECONDS) --caches $(SOAK_CACHES) --overload $(OVERLOAD_SECONDS)

# Hours on two cores; every phase keeps what it made in WORK, so that a stopped build goes on where it was.
# Also needed: WordNet 3.0 (on Debian: apt-get install wordnet-base).
backbone: $(TRAIN)
	@test -d "$(DATA)" || { echo "name the folder with the training data: make backbone DATA=folder" >&2; exit 1; }
	$(BIN)/python -m adapters.training.backbone --data $(DATA) --work $(WORK) --out adapters/bundled

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
