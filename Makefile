# `make demo` and `make test` need only Python >= 3.11 and make: each sets up .venv by itself.

PYTHON ?= python3
BIN := .venv/bin
# The check of shapes and the tests run two at a time, one thread each: that is quickest on two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: demo test lint types docs wheel clean

demo: .venv/core
	$(BIN)/renorm demo --resume --out runs/demo
	@echo "open runs/demo/report.html"

test: .venv/dev
	$(PYTEST) -n 2 --dist loadfile

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/dev
	$(BIN)/mypy

docs: .venv/dev
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

wheel: .venv/dev
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf .venv dist docs/_build

.venv/core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e .
	touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev]"
	touch $@
