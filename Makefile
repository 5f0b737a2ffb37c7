# `make gate` and `make test` do everything on a fresh machine with Python 3.11.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TARGET ?= android
# Nothing here reaches for a model hub; OMP: results do not depend on the number of cores.
export HF_HUB_OFFLINE := 1
export OMP_NUM_THREADS := 1

CHECKPOINT ?= golden/golden.nemo
CALIBRATION ?= golden/calib.jsonl
BASELINE ?= build/baseline

.PHONY: gate test lint setup golden lock clean release faults mutants zoo gate-zoo accept bench-gate \
	bench-exporters bench-rewrites setup-exact

gate: setup  ## export the golden checkpoint's files and judge them
	$(BIN)/python -m pytest suites/ --target $(TARGET) --junitxml build/report/junit.xml \
		--history build/history.db

test: setup lint  ## test the harness itself, fast tests first
	$(BIN)/python -m pytest tests/ -m "not slow" -n 2
	@mkdir -p build
	@# The gate inside a test runs beside the other slow tests and ahead of them: it takes longest.
	@$(BIN)/python -m pytest tests/ -m "slow and nested" > build/test-nested.log 2>&1 & nested=$$!; \
	nice $(BIN)/python -m pytest tests/ -m "slow and not nested" -n 2 --dist loadfile; slow=$$?; \
	echo "waiting for the tests that run the gate (build/test-nested.log)"; \
	wait $$nested; nested=$$?; cat build/test-nested.log; exit $$((slow + nested))

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

release: setup  ## export every file of every target from one load of the checkpoint
	$(BIN)/python -m exporters.release --checkpoint $(CHECKPOINT) --val_manifest $(CALIBRATION) \
		--target all --out build/release --cache build/gate/cache

faults: setup  ## inject every listed fault into real files and show which gates go red
	$(BIN)/python -m tests.faults

N ?= 1000
SEED ?= 1
mutants: setup  ## generate mutants of every file until N count, and show which survive the gate
	$(BIN)/python -m tests.mutants -n $(N) --seed $(SEED)

zoo: setup  ## train 14 other checkpoints and gate every target on each: two hours
	$(BIN)/python -m benchmarks.zoo.train --out build/zoo
	$(BIN)/python -m benchmarks.zoo.judge --zoo build/zoo --table benchmarks/results/zoo.md

gate-zoo: setup  ## gate every target on the two smallest checkpoints of the zoo
	rm -f build/gate-zoo/results.jsonl
	$(BIN)/python -m benchmarks.zoo.judge --zoo golden/zoo --work build/gate-zoo

accept: setup  ## make the files of the last green gate the baseline
	$(BIN)/exportgate promote --report build/report/report.json --baseline $(BASELINE)

bench-gate: setup  ## count false alarms and detections of the latency comparison
	$(BIN)/python -m benchmarks.bench_gate --out build/bench_gate.txt

bench-exporters: setup build/full.nemo  ## our files beside NeMo's own export and the plain recipes
	$(BIN)/python -m benchmarks.exporters --out build/bench_exporters.md

bench-rewrites: setup build/full.nemo  ## what each part of the rewrites buys
	$(BIN)/python -m benchmarks.rewrites --out build/bench_rewrites.md

build/full.nemo: | setup  ## a model of full size, 20 minutes of one core
	$(BIN)/python -m benchmarks.full_model --out $@

setup-exact: setup  ## install the emulator that counts instructions (Debian, as root)
	apt-get install --yes qemu-user gcc
	$(BIN)/exportgate instructions setup

golden: setup  ## train the golden checkpoint again and make everything pinned to it
	$(BIN)/python -m golden.train
	$(BIN)/python -m golden.build

lock:  ## pin the whole closure of pyproject.toml as it is installed now
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip freeze --exclude-editable | sed -E "s/^(torch==[0-9.]+)[+]cpu/\1/" > requirements.lock

clean:
	rm -rf build $(VENV)
