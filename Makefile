# `make gate` and `make test` do everything on a fresh machine with Python 3.11.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TARGET ?= android
# Nothing here reaches for a model hub; OMP: results do not depend on the number of cores.
export HF_HUB_OFFLINE := 1
export OMP_NUM_THREADS := 1

.PHONY: gate test lint setup golden lock clean

gate: setup  ## export the golden checkpoint's files and judge them
	$(BIN)/python -m pytest suites/ --target $(TARGET) --junitxml build/report/junit.xml

test: setup lint  ## test the harness itself, fast tests first
	$(BIN)/python -m pytest tests/ -m "not slow"
	$(BIN)/python -m pytest tests/ -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

golden: setup  ## train the golden checkpoint again and make everything pinned to it
	$(BIN)/python -m golden.train
	$(BIN)/python -m golden.build

lock:  ## pin the whole closure of pyproject.toml as it is installed now
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip freeze --exclude-editable --exclude exportgate > requirements.lock

clean:
	rm -rf build $(VENV)
