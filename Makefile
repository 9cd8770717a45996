# `make demo` and `make test` do all the set-up they need; `make install` does only that.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
KERNELS := $(shell grep -rlE "njit|intrinsic" --include=*.py curation schemas)

.PHONY: install demo test check style types pytest lock clean

install: $(INSTALLED) .venv/kernels

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Pairmill needs Python 3.11 or newer; say which: make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip --quiet --disable-pip-version-check install "uv>=0.9"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

# numba looks at the file of a cached function only, not at those of the functions that it calls.
.venv/kernels: $(KERNELS) | $(INSTALLED)
	find curation schemas -name '*.nb[ic]' -delete
	@touch $@

demo: install
	$(BIN)/pairmill demo

# The types are checked on one core while Ray, Prefect and browsers let the tests wait.
test: style
	$(MAKE) --no-print-directory --jobs 2 pytest types

check: style types

style: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

pytest: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lock:
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 --quiet --output-file requirements.lock

clean:
	rm -rf .venv
