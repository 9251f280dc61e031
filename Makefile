# Each of figures, lab, classroom, docs and test works on a bare clone: it first installs what it needs into .venv, and only when a pin changed.
PYTHON ?= python3
BIN := .venv/bin
CORE := .venv/.core
NOTEBOOKS := .venv/.notebooks
TEST := .venv/.test
NBVAL := -n 2 --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout 600
export OMP_NUM_THREADS = 1
export MPLBACKEND = Agg
export PYTHONUTF8 = 1

.PHONY: setup figures check-figures notebooks check-notebooks lab classroom bench lint test test-notebooks test-slow test-portable reliability check-reliability docs gallery equations scaling clean

define install
	@if command -v uv >/dev/null 2>&1; then \
	  test -x $(BIN)/python || uv venv --quiet --python $(PYTHON) .venv; \
	  UV_FIND_LINKS="$$PIP_FIND_LINKS" uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(1)]'; \
	else \
	  test -x $(BIN)/python || $(PYTHON) -m venv .venv; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]'; \
	fi
	@touch $@
endef

setup: $(TEST)

$(CORE): pyproject.toml constraints.txt
	$(call install,metrics)

$(NOTEBOOKS): pyproject.toml constraints.txt
	$(call install,notebooks)

$(TEST): pyproject.toml constraints.txt
	$(call install,test)
	@touch $(CORE) $(NOTEBOOKS)

figures: $(CORE)
	$(BIN)/python figures/run.py

check-figures: $(CORE)
	$(BIN)/python figures/run.py --check

lab: $(NOTEBOOKS)
	$(BIN)/jupyter lab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_setup_check.ipynb

classroom: $(NOTEBOOKS)
	$(BIN)/python notebooks/classroom.py $(if $(HALL),--hall) $(if $(PORT),--port $(PORT))

notebooks: $(TEST)
	$(BIN)/python notebooks/build.py

check-notebooks: $(TEST)
	$(BIN)/python notebooks/build.py --check

bench: $(TEST)
	$(BIN)/python benchmarks/run.py

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal --durations 30 --cov --proofs build/proofs/test.json
	$(MAKE) --no-print-directory test-notebooks

test-notebooks: $(TEST)
	$(BIN)/python -m pytest $(NBVAL) notebooks/[0-9][0-9]_*.ipynb

# As on a processor without wide vectors, which rounds otherwise.
test-portable: $(TEST)
	ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest $(NBVAL) tests/test_checks_*.py $(foreach n,05 08 13,notebooks/$(n)_*.ipynb)

test-slow: $(TEST)
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal --durations 30 --proofs build/proofs/slow.json

check-reliability: $(TEST)
	$(BIN)/python docs/make_reliability.py --check

reliability: $(TEST)
	$(BIN)/python -m pytest -n 2 --dist worksteal --proofs build/proofs/all.json $$($(BIN)/python docs/make_reliability.py --tests)
	$(BIN)/python docs/make_reliability.py

docs: $(TEST)
	$(BIN)/python docs/make_site.py

gallery: $(TEST)
	$(BIN)/python docs/make_gallery.py

equations: $(TEST)
	$(BIN)/python docs/make_equations.py

scaling: $(TEST)
	$(BIN)/python docs/make_scaling.py

clean:
	rm -rf .venv build *.egg-info .coverage .mypy_cache .ruff_cache
