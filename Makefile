# One way in.  `make help` lists what there is.
# Settings pass through: `make run DPE_PORT=9000`, `make test TESTS=tests/test_cli.py`.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: audit help run test faults soak fuzz lint bench clean

VENV := .venv
TESTS ?=
# The first of these that is Python 3.11 or newer; or say it: make run PYTHON=/path/to/python3.12
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

help:  ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.installed  ## Start the whole stack and show one start call become rows; Ctrl-C ends it
	@$(VENV)/bin/dpe up --demo

test: $(VENV)/.installed-dev  ## Run every test, on real servers
	@$(VENV)/bin/python -m pytest -n 4 --dist loadfile $(TESTS)

bench: $(VENV)/.installed-dev  ## Measure against the hand-written baseline, side by side (needs wrk)
	@$(VENV)/bin/python -m benchmarks.run

SEED ?= 1
SEEDS ?= 1
SECONDS ?= 3600
PROFILE ?= actions
FAULTS = $(VENV)/bin/python -m tests.faults --seed $(SEED) --profile $(PROFILE)

faults: $(VENV)/.installed-dev  ## 10,000 jobs under 100 faults, then an independent check (SEED=, SEEDS=, PROFILE=workflows)
	@$(FAULTS) --seeds $(SEEDS)

soak: $(VENV)/.installed-dev  ## The same for as long as you like (SECONDS=)
	@$(FAULTS) --seconds $(SECONDS) --jobs 1 --faults 1

REQUESTS ?= 10000

fuzz: $(VENV)/.installed-dev  ## Send generated requests to every route, hold the answers against /openapi.json (REQUESTS=)
	@$(VENV)/bin/python -m tests.fuzz --requests $(REQUESTS) --seed $(SEED)

lint: $(VENV)/.installed-dev  ## Check format, style, types and who imports whom
	@$(VENV)/bin/ruff format --check --quiet . || { echo 'mend it: $(VENV)/bin/ruff format .' >&2; exit 1; }
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/basedpyright
	@$(VENV)/bin/lint-imports --no-cache

audit: $(VENV)/.installed-dev  ## Look up known weaknesses of the pinned packages; skipped without a network
	@$(VENV)/bin/python .ci/audit.py

clean:  ## Remove what was installed; the data in .dpe stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis

# Installing: quiet but for the name of the package under way; pip's own errors are shown whole.
# The pipe would hide pip's exit code, so it goes through a file.
define install
	@[ -t 1 ] && live=1 || live=0; began=$$(date +%s); \
	echo "installing $(1) into $(VENV) (the first time about a minute)"; \
	{ $(VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off \
	    --constraint constraints.txt --editable '$(1)'; echo $$? > $(VENV)/.exit; } | \
	awk -v live=$$live 'live && /^Collecting/ { n++; sub(/[^A-Za-z0-9._-].*/, "", $$2); printf "\r\033[K  %d: %s", n, $$2; fflush() } \
	  live && /^Installing collected/ { printf "\r\033[K  unpacking %d packages", n; fflush() } \
	  END { if (live) printf "\r\033[K" }'; \
	[ "$$(cat $(VENV)/.exit)" = 0 ] || { echo 'installing failed: pip says why above' >&2; exit 1; }; \
	echo "installed in $$(( $$(date +%s) - began )) s"; rm -f $(VENV)/.exit; touch $@
endef

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(call install,.)

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(call install,.[dev])
	@touch $(VENV)/.installed

# Order-only would miss a removed interpreter: the link's target is what counts, and make follows it.
$(VENV)/bin/python:
	@[ -n '$(PYTHON)' ] || { echo 'Python 3.11 or newer is needed, and none is on the PATH;' \
	  'install it, or say where it is: make run PYTHON=/path/to/python3.12' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1)" >&2; exit 1; }
	@'$(PYTHON)' -m venv $(VENV) || { rm -rf $(VENV); echo 'python -m venv failed: on Debian and' \
	  'Ubuntu it needs the package python3-venv' >&2; exit 1; }
