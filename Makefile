# AiProject. From a bare clone, with Python >= 3.11, make and a C compiler:
#
#   make run      set up and serve on 127.0.0.1:8080
#   make test     set up and run the whole test suite; starts the database servers it needs
#   make test-cluster  a MariaDB Galera cluster, whose nodes are stopped, killed and frozen under load (some minutes)
#   make check    formatter, linter, types, import directions, licences, vulnerabilities and the bill of materials
#   make setup    only the set-up
#   make bench    the benchmarks; make bench ONLY='relay cost many-streams', make bench ONLY='relay soak --minutes 30'
#   make bench-peers  AiProject beside LiteLLM's proxy, which it installs into .venv-peers (750 MB)
#   make sbom     only the bill of materials, build/sbom.cdx.json
#   make fuzz     the parsers, by atheris: 200,000 inputs each (make fuzz RUNS=1000, make fuzz TARGETS='wav http')
#   make fuzz-api the whole HTTP interface, by schemathesis: 1000 calls an operation (make fuzz-api EXAMPLES=100)
#   make reference  the reference pages of docs/ that are written from the code
#   make lock     write the lock files anew (make lock UPGRADE=--upgrade takes the newest of everything)
#   make wheel    build dist/*.whl
#   make docs     the documentation site, build/docs/index.html, in English and Chinese, its links checked

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test files run side by side in so many processes, each with database servers of its own (0.5 GB in all). The suite
# waits as often as it computes, so twice as many as there are processors.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) \* 2)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: setup run test test-cluster check bench bench-peers lock docs reference wheel clean services format sbom fuzz fuzz-api

setup: $(VENV)/.run

run: setup
	$(BIN)/aiproject serve

# Each stamp is younger than the lock file that it was installed from.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "AiProject needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "this Python has no venv module; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.python requirements/run.txt pyproject.toml
	$(PIP) install --require-hashes -r requirements/run.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev requirements/fuzz.txt
	$(PIP) install --require-hashes -r requirements/fuzz.txt
	@touch $@

services: $(VENV)/.dev
	$(BIN)/python tools/get_services.py

test: $(VENV)/.dev services
	$(BIN)/python -m pytest -m serial
	$(BIN)/python -m pytest -m "not serial" --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
	$(BIN)/python tools/galera_test.py --brief

test-cluster: $(VENV)/.dev services
	$(BIN)/python tools/galera_test.py --rounds 2

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/audit.py
	$(BIN)/python tools/sbom.py

sbom: $(VENV)/.dev
	$(BIN)/python tools/sbom.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The Flask relay that we are compared with, and matplotlib for the plots.
$(VENV)-bench/.bench: requirements/bench.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

$(VENV)-peers/.peers: requirements/peers.txt
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

bench: $(VENV)/.dev $(VENV)-bench/.bench services
	$(BIN)/python -m bench $(ONLY)

bench-peers: $(VENV)/.dev $(VENV)-bench/.bench $(VENV)-peers/.peers
	$(BIN)/python -m bench relay peers

fuzz: $(VENV)/.fuzz
	PYTHONPATH=src:tests $(BIN)/python -m fuzz $(TARGETS) $(if $(RUNS),--runs $(RUNS))

fuzz-api: $(VENV)/.dev
	FUZZ_EXAMPLES=$(or $(EXAMPLES),1000) $(BIN)/python -m pytest tests/system/test_fuzzing.py

reference: $(VENV)/.dev
	$(BIN)/python -m tools.reference

lock: $(VENV)/.dev
	tools/lock.sh $(UPGRADE)

docs: reference
	$(BIN)/python tools/build_docs.py

wheel: $(VENV)/.dev
	$(BIN)/python -m hatchling build -t wheel

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-peers .services build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
