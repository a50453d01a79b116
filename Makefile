# Two commands matter: `make demo` and `make test`. Both set everything up first.
VENV ?= .venv
PYTHON ?= python3
# For a GPU: make demo EXTRAS=dev,cuda13 (or cuda12).
EXTRAS ?= dev
# Processes of `make test`; each takes up to 3 GB.
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow lint setup clean

demo: $(STAMP)  ## the main job on the embedded digits; report in runs/
	$(BIN)/lottery-jax compare --data digits --out runs

test: $(STAMP)  ## the fast tests, docstring examples included
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not clock"; parallel=$$?; \
	echo "Tests that depend on time, alone:"; \
	$(BIN)/python -m pytest -m "clock and not slow" $$(grep -rl --include="*.py" pytest.mark.clock tests); alone=$$?; \
	test $$parallel -eq 0 && { test $$alone -eq 0 || test $$alone -eq 5; }  # 5: there are none

test-slow: $(STAMP)  ## the tests that take longer
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lottery_jax needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[$(EXTRAS)]'
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --target $(VENV)/share/dask-kubernetes dask-kubernetes  # schemas for a test
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
