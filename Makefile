# Everything lives in .venv; the two commands a newcomer needs are `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ROOMS  := pruning kernels latency envs agents search_runs
PARTS  := runs kernels others
CPP    := $(shell find kernels latency -name '*.cpp' -o -name '*.hpp' -o -name CMakeLists.txt)

, := ,
# The tests that run on an engine built without Python, in a process of its own (tests/kernels/engine_process.py).
ENGINE := $(addprefix tests/kernels/test_,convolution.py engine.py hostile.py compile.py running.py winograd.py)
PER_ENGINE := not at_once and not go_on and not layers_beyond and not tables_are_refused
build-engine = cmake -S . -B build/$(1) -DPRUNEMAP_ENGINE_PROCESS=ON $(2) > /dev/null && cmake --build build/$(1) --parallel
test-engine  = PYTHONPATH=tests/kernels $(BIN)/pytest -q -p engine_process -p no:cacheprovider --engine "$(1)" $(ENGINE) -k "$(2)"
PRINT_ISAS   = from prunemap.kernels import isas; print(*isas(), sep=';')
need         = @for tool in $(1); do command -v $$tool > /dev/null || { echo "$$tool is missing: $(2)"; exit 1; }; done

.PHONY: help install demo test $(PARTS:%=test-%) lint check-neon check-sanitizers bench clean

help:
	@echo "make demo    set up .venv and run a real search on the bundled digits data"
	@echo "make test    set up .venv and run all tests"
	@echo "make lint    ruff, mypy --strict, C++ warnings as errors (the build itself)"
	@echo "make check-neon        the engine's tests on emulated Arm NEON"
	@echo "make check-sanitizers  the engine's tests under AddressSanitizer and UBSan"
	@echo "make bench   the measured tables of the docs"
	@echo "make clean   remove .venv and build"

install: $(STAMP)

# torch comes first and pinned, so that no later dependency can pull another build of it.
$(STAMP): pyproject.toml constraints.txt CMakeLists.txt __init__.py $(CPP)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prunemap needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[dev,peers]'
	@touch $@

demo: $(STAMP)
	$(BIN)/prunemap search digits --fresh
	$(BIN)/prunemap compare runs/digits
	$(BIN)/prunemap replay runs/digits

test: $(STAMP) lint
	@echo "the tests run in $(words $(PARTS)) parts, two at a time, each shown when it is done"
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target $(PARTS:%=test-%)

$(PARTS:%=test-%): export OMP_NUM_THREADS := 1
$(PARTS:%=test-%): $(STAMP)
test-runs:    ; $(BIN)/pytest tests/search_runs
test-kernels: ; $(BIN)/pytest tests/kernels
test-others:  ; $(BIN)/pytest --ignore=tests/search_runs --ignore=tests/kernels

# mypy follows imports by path, so it is shown the tree as it looks once installed.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/ns/prunemap
	@for part in $(ROOMS) __init__.py py.typed; do ln -sfn ../../../$$part build/ns/prunemap/$$part; done
	MYPYPATH=build/ns $(BIN)/mypy -p prunemap

check-neon: $(STAMP)
	$(call need,cmake aarch64-linux-gnu-g++ qemu-aarch64,apt-get install cmake g++-aarch64-linux-gnu qemu-user)
	$(call build-engine,neon,-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static)
	$(call test-engine,qemu-aarch64 build/neon/kernels/engine_process,$(PER_ENGINE))

# Little optimisation: what is read and written is the same, and it compiles faster. Of the ISAs, those that can run here.
check-sanitizers: $(STAMP)
	$(call need,cmake g++,apt-get install cmake g++)
	$(call build-engine,sanitized,-DPRUNEMAP_OPTIMIZE=-O1 -DPRUNEMAP_ISAS="$$($(BIN)/python -c "$(PRINT_ISAS)")" \
	  -DCMAKE_CXX_FLAGS="-g1 -fsanitize=address$(,)undefined -fno-sanitize-recover=all")
	$(call test-engine,build/sanitized/kernels/engine_process,$(PER_ENGINE) and not real_numbers)

bench: $(STAMP)
	$(BIN)/prunemap bench roof
	$(BIN)/python benchmarks/kernel_targets.py
	$(BIN)/python benchmarks/latency_targets.py
	$(BIN)/prunemap bench signal digits
	$(BIN)/prunemap bench signal shapes

clean:
	rm -rf $(VENV) build
