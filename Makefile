# make demo | test | check | site | bench | clean
#
# Each target makes the virtual environment it needs first; a second run finds it made.
PYTHON ?= python3
VENV := .venv
TPC_VENV := .cache/venv-tpc
CONNECTORX_VENV := .cache/venv-connectorx
EMULATORS := aws bigquery databricks pyspark snowflake spark
EMULATOR_STAMPS := $(EMULATORS:%=.cache/venv-%/.stamp)
BIN := $(VENV)/bin
# Worker processes of the test run; 2 fits the smallest machine that CI has.
JOBS ?= 2
PYTEST_ARGS ?=

.PHONY: demo test check site bench clean venv tpc-venv
.PRECIOUS: .cache/venv-%/.stamp

venv: $(VENV)/.stamp

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

# DuckDB 1.5.5 with its TPC generators and its own scanners: makes the test data, and is a peer
# in the benchmarks. Its own environment, since Batuta itself needs DuckDB 2.
tpc-venv: $(TPC_VENV)/.stamp

$(TPC_VENV)/.stamp: tests/tpc/requirements.txt
	mkdir -p .cache
	$(PYTHON) -m venv $(TPC_VENV)
	$(TPC_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/tpc/requirements.txt
	touch $@

# ConnectorX, another peer in the benchmarks.
$(CONNECTORX_VENV)/.stamp: benchmarks/connectorx.txt
	mkdir -p .cache
	$(PYTHON) -m venv $(CONNECTORX_VENV)
	$(CONNECTORX_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/connectorx.txt
	touch $@

# Emulators of remote systems, each with an environment of its own: their pins are not ours.
.cache/venv-%/.stamp: tests/emulators/%.txt
	mkdir -p .cache
	$(PYTHON) -m venv .cache/venv-$*
	.cache/venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

.cache/tpc/.stamp: $(TPC_VENV)/.stamp tests/tpc/generate.py
	$(TPC_VENV)/bin/python tests/tpc/generate.py --into .cache/tpc
	touch $@

demo: $(VENV)/.stamp
	$(BIN)/python -m batuta_sql.demo

test: $(VENV)/.stamp .cache/tpc/.stamp $(EMULATOR_STAMPS)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m 'not alone' $(PYTEST_ARGS)
	@# 5: there is none among them.
	$(BIN)/python -m pytest -m alone $(PYTEST_ARGS) || [ $$? -eq 5 ]

check: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict batuta_sql
	$(BIN)/lint-imports
	$(MAKE) site

# The documentation, as build/site. It is built from a copy: the builder empties the .cache beside its
# configuration, which here holds test data and environments. A broken link is an error.
site: $(VENV)/.stamp
	rm -rf build/docs build/site build/.cache
	mkdir -p build
	cp -R docs build/docs
	mv build/docs/zensical.toml build/zensical.toml
	cd build && $(abspath $(BIN))/zensical build --strict

bench: $(VENV)/.stamp .cache/tpc/.stamp $(CONNECTORX_VENV)/.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean:
	rm -rf $(VENV) .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
