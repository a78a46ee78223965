# One runner for everything; `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo check format lock docs wheel kernel test test-deep test-integration test-kafka soak stack picture kafka kafka-stop bench clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make the virtual environment (done by the others when needed)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "hearback needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $(READY)

demo: setup ## a simulated market, live, from nothing to a summary (a minute)
	$(BIN)/hearback demo

check: setup ## what the gate checks besides tests: lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## renew constraints.txt from the newest releases that pyproject.toml allows
	$(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.lock/bin/python -m pip install --quiet --editable . --group dev
	{ sed -n '/^#/p' constraints.txt; .lock/bin/python -m pip freeze --exclude-editable; } > .lock/constraints.txt
	mv .lock/constraints.txt constraints.txt
	rm -rf .lock

docs: setup ## the pages and dashboards that are made from the code
	$(BIN)/python -m stream.labels.document
	$(BIN)/python -m stream.report.document
	$(BIN)/python -m stream.replay.document
	$(BIN)/python -m stream.events.document
	$(BIN)/python -m stream.metrics.document
	$(BIN)/python -m stream.configuration.render
	$(BIN)/python -m deploy.dashboards

wheel: setup ## a wheel in dist/, to install without a checkout
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

kernel: setup ## compile the kernel; minutes on a busy machine, so no test has to wait for it
	$(BIN)/python -c "from stream.updaters.newton import warm_up; warm_up()"

test: kernel ## all tests but those on a real Kafka
	$(BIN)/python -m pytest --ignore tests/integration

test-integration: kernel ## on a real Kafka: every crash point, 5 random kills (25 minutes)
	$(BIN)/python -m pytest tests/integration/$(ONLY) $(if $(ONLY),,-m "not long")

test-kafka: kernel ## all of them, with 20 random kills (half an hour)
	HEARBACK_TEST_KILLS=20 $(BIN)/python -m pytest tests/integration

soak: setup ## kills and restarts for hours: make soak HOURS=8
	$(BIN)/python -m tests.integration.soak $(or $(HOURS),1)

stack: setup ## everything as processes: Kafka, two workers, a market, a service, Prometheus; Ctrl-C ends it
	@$(BIN)/python -m deploy.stack

picture: setup ## a browser's pictures of the running stack, for the docs
	$(BIN)/python -m deploy.picture

kafka: setup ## a real Kafka on this machine (Java 17 and Maven); prints its address
	@$(BIN)/python -m deploy.kafka start

kafka-stop: setup ## end it and remove its data
	@$(BIN)/python -m deploy.kafka stop

test-deep: setup ## the properties with 20,000 examples (half an hour)
	HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest tests/labels tests/histories tests/state tests/partitions/test_partitions.py tests/partitions/test_units_of_work.py --timeout 3600

bench: setup ## make bench NAME=x runs benchmarks/x.py (ARGS="..."); its last line is one JSON object
	@test -n "$(NAME)" || { echo "name one: make bench NAME=$$(ls benchmarks | sed -n 's/^\([a-z].*\)\.py$$/\1/p' | paste -sd'|')"; exit 2; }
	$(BIN)/python -m benchmarks.$(NAME) $(ARGS)

clean: ## remove what the others made
	rm -rf $(VENV) demo-run stack-run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
