# Everything lives in .venv; the two commands a newcomer needs are `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ROOMS  := pruning kernels latency envs agents search_runs
CPP    := $(shell find kernels -name '*.cpp' -o -name '*.hpp' -o -name CMakeLists.txt)

.PHONY: help install demo test lint bench clean

help:
	@echo "make demo    set up .venv and run a real search on the bundled digits data"
	@echo "make test    set up .venv and run all tests"
	@echo "make lint    ruff, mypy --strict, C++ warnings as errors (the build itself)"
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
	$(BIN)/pytest

# mypy follows imports by path, so it is shown the tree as it looks once installed.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/ns/prunemap
	@for part in $(ROOMS) __init__.py py.typed; do ln -sfn ../../../$$part build/ns/prunemap/$$part; done
	MYPYPATH=build/ns $(BIN)/mypy -p prunemap

bench: $(STAMP)
	$(BIN)/prunemap bench roof
	$(BIN)/python benchmarks/kernel_targets.py
	$(BIN)/prunemap bench signal digits
	$(BIN)/prunemap bench signal shapes

clean:
	rm -rf $(VENV) build
