# setup, figures and test each work on a bare clone: they install first, into .venv, and only when a pin changed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS = 1
export MPLBACKEND = Agg

.PHONY: setup figures check-figures bench test lint equations clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
	  test -x $(BIN)/python || uv venv --quiet --python $(PYTHON) .venv; \
	  UV_FIND_LINKS="$$PIP_FIND_LINKS" uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[test]'; \
	else \
	  test -x $(BIN)/python || $(PYTHON) -m venv .venv; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'; \
	fi
	@touch $@

figures: $(STAMP)
	$(BIN)/python figures/run.py

check-figures: $(STAMP)
	$(BIN)/python figures/run.py --check

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --cov

equations: $(STAMP)
	$(BIN)/python docs/make_equations.py

clean:
	rm -rf .venv build *.egg-info .coverage .mypy_cache .ruff_cache
