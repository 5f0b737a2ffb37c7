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
SWIPES ?= golden/val.jsonl
# Marks of tests that have a target of their own (.ci/run calls them), joined with "or".
APART := long or browser or clients or runtimes or arm64 or report or mlflow

.PHONY: gate test lint setup golden lock clean release faults fault-table fault-limits mutants mutant-table \
	zoo gate-zoo accept bench-gate bench-exporters bench-rewrites setup-exact setup-browser test-browser \
	setup-clients test-clients demo docs \
	setup-arm64 test-arm64 gate-arm64

gate: setup  ## export the golden checkpoint's files and judge them
	$(BIN)/python -m pytest suites/ --target $(TARGET) --junitxml build/report/junit.xml \
		--history build/history.db

test: setup lint  ## test the harness itself, fast tests first
	$(BIN)/python -m pytest tests/ -m "not slow and not ($(APART))" -n 2
	@mkdir -p build
	@# The gate inside a test runs beside the other slow tests and ahead of them: it takes longest.
	@$(BIN)/python -m pytest tests/ -m "slow and nested and not ($(APART))" > build/test-nested.log 2>&1 & nested=$$!; \
	nice $(BIN)/python -m pytest tests/ -m "slow and not nested and not ($(APART))" -n 2 --dist loadfile; slow=$$?; \
	echo "waiting for the tests that run the gate (build/test-nested.log)"; \
	wait $$nested; nested=$$?; cat build/test-nested.log; exit $$((slow + nested))

.PHONY: test-long
test-long: setup  ## the tests of the harness that take a minute each: wheel, mutants, lowering, localizing
	$(BIN)/python -m pytest tests/ -m "long and not nested" -n 2 --dist loadfile
	$(BIN)/python -m pytest tests/ -m "long and nested"

FUZZ ?= 10000
.PHONY: fuzz
fuzz: setup  ## give mutated files to every reader in a watched process, FUZZ of them
	$(BIN)/python -m tests.fuzz -n $(FUZZ)

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

fault-table: setup  ## the same, each fault judged by its own gate only; writes the table of results
	$(BIN)/python -m tests.faults --named --out benchmarks/results/faults.md

fault-limits: setup  ## how small a fault the outputs show; writes the table of results
	$(BIN)/python -m tests.faults --limits --out benchmarks/results/fault_limits.md

N ?= 1000
SEED ?= 1
mutants: setup  ## generate mutants of every file until N count, and show which survive the gate
	$(BIN)/python -m tests.mutants -n $(N) --seed $(SEED)

mutant-table: setup  ## the same; writes the table of results
	$(BIN)/python -m tests.mutants -n $(N) --seed $(SEED) --out benchmarks/results/mutants.md

zoo: setup  ## train 14 other checkpoints and gate every target on each: two hours
	$(BIN)/python -m benchmarks.zoo.train --out build/zoo
	$(BIN)/python -m benchmarks.zoo.judge --zoo build/zoo --table benchmarks/results/zoo.md
	$(BIN)/python -m benchmarks.zoo.false_alarms --work build/zoo/gate --out benchmarks/results/false_alarms.md

gate-zoo: setup  ## gate every target on the two smallest checkpoints of the zoo
	rm -f build/gate-zoo/results.jsonl
	$(BIN)/python -m benchmarks.zoo.judge --zoo golden/zoo --work build/gate-zoo

accept: setup  ## make the files of the last green gate the baseline
	$(BIN)/exportgate promote --report build/report/report.json --baseline $(BASELINE)

bench-gate: setup  ## count false alarms and detections of the latency comparison
	$(BIN)/python -m benchmarks.bench_gate --out build/bench_gate.txt

.PHONY: setup-peers
setup-peers: build/peers/.installed  ## other projects' exporters, pinned, in an environment of their own (2 GB)

build/peers/.installed: benchmarks/peers.lock
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip install --quiet --requirement benchmarks/peers.lock
	touch $@

bench-exporters: setup setup-peers build/full.nemo  ## our files beside NeMo's own export and the plain recipes
	$(BIN)/python -m benchmarks.exporters --out build/bench_exporters.md

bench-rewrites: setup build/full.nemo  ## what each part of the rewrites buys
	$(BIN)/python -m benchmarks.rewrites --out build/bench_rewrites.md

.PHONY: bench-growth
bench-growth: setup  ## how export and gate grow with parameters, swipes, checkpoints: an hour
	$(BIN)/python -m benchmarks.growth --out benchmarks/results/growth.md

.PHONY: bench-figures
bench-figures: setup setup-peers build/full.nemo  ## size, latency, fidelity, cost of a release in one table
	$(BIN)/python -m benchmarks.figures --out benchmarks/results/figures.md

build/full.nemo: | setup  ## a model of full size, 20 minutes of one core
	$(BIN)/python -m benchmarks.full_model --out $@

# $(call packages,COMMAND:PACKAGE …): install what is missing, and only that. Who has Node of another
# vendor has an npm that Debian's package conflicts with.
packages = @missing=""; for each in $(1); do \
	command -v "$${each%%:*}" > /dev/null || missing="$$missing $${each\#\#*:}"; done; \
	test -z "$$missing" || (apt-get update --quiet && apt-get install --yes --quiet $$missing)
NODE := node:nodejs npm:npm

setup-exact: setup  ## install the emulator that counts instructions (Debian, as root)
	$(call packages,qemu-x86_64:qemu-user gcc:gcc)
	$(BIN)/exportgate instructions setup

setup-browser: setup  ## install Chromium, Node and onnxruntime-web, pinned (Debian, as root)
	$(call packages,chromium:chromium $(NODE))
	$(BIN)/python -m harness.devices.browser.setup

test-browser: setup-browser  ## test the devices that are pages
	$(BIN)/python -m pytest tests/ -m browser

.PHONY: setup-report test-report
setup-report: setup  ## what opens the report: Chromium, axe-core, pinned (Debian, as root)
	$(call packages,chromium:chromium $(NODE))
	cd tests/report_page && npm ci --no-audit --no-fund

test-report: setup-report  ## open reports wide and on a phone, light and dark, and ask axe-core
	$(BIN)/python -m pytest tests/ -m report

.PHONY: setup-mlflow test-mlflow
setup-mlflow: build/mlflow/bin/mlflow  ## an MLflow server in an environment of its own, pinned

build/mlflow/bin/mlflow: | setup
	$(PYTHON) -m venv build/mlflow
	build/mlflow/bin/python -m pip install --quiet mlflow==3.17.2

test-mlflow: setup-mlflow  ## log runs of the gate to a real server
	$(BIN)/python -m pytest tests/ -m mlflow

setup-clients: setup  ## what builds and runs the clients, pinned (Debian, as root)
	$(call packages,chromium:chromium g++:g++ $(NODE))
	cd clients/web && npm ci --no-audit --no-fund && npm run build

test-clients: setup-clients  ## hold the clients of a bundle against the harness
	$(BIN)/python -m pytest tests/clients -m clients

SOAK ?= 10000
.PHONY: bench-latency
bench-latency: setup-clients setup-browser setup-arm64 build/clients/bundle/known_answers.json  ## from swipe to word in every client; SOAK swipes
	$(BIN)/exportgate latency build/clients/bundle --on cpp --on browser --on python --on arm64 \
		--manifest $(SWIPES) --soak $(SOAK) --out build/end_to_end
	cp build/end_to_end/end_to_end.md benchmarks/results/end_to_end.md

.PHONY: bench-latency-gate
bench-latency-gate: setup-clients build/clients/bundle/known_answers.json  ## count its false alarms and detections
	$(BIN)/python -m benchmarks.bench_latency --bundle build/clients/bundle --out build/bench_latency.txt

build/clients/bundle/known_answers.json: $(CHECKPOINT) | setup
	rm -rf build/clients
	$(BIN)/python -m exporters.release --checkpoint $(CHECKPOINT) --calibration $(CALIBRATION) \
		--variant encoder_int8.pte --variant step_fp32.pte \
		--variant encoder_int8_web.onnx --variant step_fp32.onnx \
		--out build/clients/files --cache build/gate/cache --package_dir build/clients/bundle
	$(BIN)/exportgate bundle specify build/clients/bundle --manifest $(SWIPES)

DEMO_PORT ?= 8017
demo: setup-clients build/demo/bundle/known_answers.json  ## a page that decodes what you draw
	node clients/web/demo/serve.mjs build/demo/bundle $(DEMO_PORT)

build/demo/bundle/known_answers.json: $(CHECKPOINT) | setup
	rm -rf build/demo
	$(BIN)/python -m exporters.release --checkpoint $(CHECKPOINT) --calibration $(CALIBRATION) \
		--variant encoder_fp32.onnx --variant encoder_int8_web.onnx --variant step_fp32.onnx \
		--out build/demo/files --cache build/gate/cache --package_dir build/demo/bundle
	$(BIN)/exportgate bundle specify build/demo/bundle --manifest $(SWIPES)
.PHONY: setup-runtimes test-runtimes bench-runtimes gate-all gate-devices bench-devices
setup-runtimes: setup  ## install the runtime versions that applications pin, by their hashes (2 GB)
	$(BIN)/exportgate runtimes setup

test-runtimes: setup-runtimes  ## test what needs those versions
	$(BIN)/python -m pytest tests/ -m runtimes

bench-runtimes: setup-runtimes  ## run every file on every one of those versions
	$(BIN)/exportgate runtimes compare --out build/runtimes-table
	cp build/runtimes-table/devices.md benchmarks/results/runtimes.md

gate-all: setup-browser setup-arm64 setup-runtimes  ## judge every target on every device it ships to
	$(BIN)/exportgate gate-all

bench-devices: gate-all  ## the table of its files by devices
	cp build/gate-all/devices.md benchmarks/results/devices.md

gate-devices: setup-browser setup-arm64  ## the part of it that a CI runs: a browser, a Cortex-A76
	$(BIN)/exportgate gate-all --quick --out build/gate-devices

setup-arm64: setup  ## install the emulated processors (Debian, as root): emulator, compilers, wheels
	$(call packages,qemu-aarch64:qemu-user cc:gcc aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu \
		aarch64-linux-gnu-g++:g++-aarch64-linux-gnu)
	$(BIN)/exportgate arm64 setup

test-arm64: setup-arm64  ## test the emulated processors
	$(BIN)/python -m pytest tests/ -m arm64

CORE ?= cortex-a76
gate-arm64: setup-arm64  ## judge the files of a target on an emulated core
	$(BIN)/python -m pytest suites/ --target $(TARGET) --device qemu-arm64:$(CORE) \
		--workdir build/$(CORE) --history build/history.db

golden: setup  ## train the golden checkpoint again and make everything pinned to it
	$(BIN)/python -m golden.train
	$(BIN)/python -m golden.build

docs: setup  ## write the generated parts of the pages anew
	$(BIN)/python -m tests.pages

lock:  ## pin the whole closure of pyproject.toml as it is installed now
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip freeze --exclude-editable | sed -E "s/^(torch==[0-9.]+)[+]cpu/\1/" > requirements.lock

clean:
	rm -rf build $(VENV)
