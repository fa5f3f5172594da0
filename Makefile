# Needs only python3 (3.11 or later) and make. `make` alone lists what there is.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
HUB := $(VENV)/bin/isr-hub
ENGINE ?= embedded

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 must be 3.11 or later (have: $$($(PYTHON) --version)); set PYTHON=..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 has no venv module; on Debian: apt-get install python3-venv"; exit 2; }
	@echo "Installing the hub's pinned packages into $(VENV) (once) ..."
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready requirements-dev.txt
	@echo "Installing the development tools (once) ..."
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

setup: $(VENV)/ready ## install the hub into .venv
demo: $(VENV)/ready ## one ISR day, simulated, decided, delivered and proved (ENGINE=real for RabbitMQ and PostgreSQL)
	@$(HUB) demo --engine $(ENGINE)
serve: $(VENV)/ready ## the hub with its console on 127.0.0.1:8080
	@$(HUB) serve
bench: $(VENV)/ready-dev ## the hub's speed as ratios, measured in one run (ARGS='--only R4,R8')
	@$(HUB) bench $(ARGS)
test: $(VENV)/ready-dev ## all tests, on real servers too
	@$(VENV)/bin/python -m pytest $(ARGS)
mutate: $(VENV)/ready-dev ## break the policy in one place at a time and see a test notice; some minutes
	@$(VENV)/bin/python -m tests.mutation.mutate $(ARGS)
lint: $(VENV)/ready-dev ## format, lint, types, floors
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
clean: ## remove what the hub made (var/); keep the environment
	@rm -rf var

.PHONY: help setup demo serve bench test mutate lint clean
