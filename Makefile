# Each target works on a bare clone: it first installs what it needs into .venv, and only when a pin changed.
PYTHON ?= python3
BIN := .venv/bin
FIGURES := .venv/.figures
NOTEBOOKS := .venv/.notebooks
TEST := .venv/.test
DIST := .venv/.dist
UV := uv==0.13.9
# uv takes torch's build for the processor, or for the GPU where there is one; wheels that are provided win.
WHEELS = $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend auto)
PYTEST := $(BIN)/python -m pytest -p no:nbval -n 2 --dist worksteal --durations 20
NBVAL := -n 2 --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout 600
PORTABLE := 05 08 13 # notebooks that run as on a processor without wide vectors, which rounds otherwise
export OMP_NUM_THREADS = 1
export MPLBACKEND = Agg
export PYTHONUTF8 = 1
unexport PYTHONDONTWRITEBYTECODE # or each process compiles torch anew

.PHONY: setup figures check-figures notebooks check-notebooks lab classroom bench lint test test-notebooks test-slow mutants dist docs gallery equations scaling clean

define install
	@echo "Installing toyscore with [$(1)] into .venv: $(2). This is done once, and again when a version changes."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(UV)"
	@$(BIN)/uv pip install $(if $(CI),--quiet) --python $(BIN)/python $(WHEELS) -c constraints.txt -e '.[$(1)]'
	@touch $@
endef

setup: $(TEST)

$(FIGURES): pyproject.toml constraints.txt
	$(call install,figures,some 310 MB to fetch and 1.2 GB on disk)

$(NOTEBOOKS): pyproject.toml constraints.txt
	$(call install,notebooks,some 360 MB to fetch and 1.4 GB on disk)

$(TEST): pyproject.toml constraints.txt
	$(call install,test,some 460 MB to fetch and 1.8 GB on disk)
	@touch $(FIGURES) $(NOTEBOOKS)

$(DIST): pyproject.toml constraints.txt
	$(call install,dist,some 280 MB to fetch and 1.1 GB on disk)

figures: $(FIGURES)
	$(BIN)/python figures/run.py

check-figures: $(FIGURES)
	$(BIN)/python figures/run.py --check

lab: $(NOTEBOOKS)
	$(BIN)/toyscore course course
	$(BIN)/jupyter lab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) --LabApp.app_settings_dir=$(CURDIR)/notebooks/lab course/00_setup_check.ipynb

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
	$(BIN)/zizmor --offline --quiet --persona pedantic .github/workflows
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

test: lint
	$(PYTEST) -m "not slow" --cov

test-slow: $(TEST)
	$(PYTEST) -m slow

test-notebooks: $(TEST)
	$(BIN)/python -m pytest $(NBVAL) $(filter-out $(foreach n,$(PORTABLE),notebooks/$(n)_%),$(sort $(wildcard notebooks/[0-9][0-9]_*.ipynb)))
	ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest $(NBVAL) $(foreach n,$(PORTABLE),notebooks/$(n)_*.ipynb)

mutants: $(TEST)
	$(BIN)/python tests/mutation.py

dist: $(DIST)
	$(BIN)/python tests/dist.py $(WHEELS)

docs: $(TEST)
	$(BIN)/python docs/make_site.py

gallery: $(TEST)
	$(BIN)/python docs/make_gallery.py

equations: $(TEST)
	$(BIN)/python docs/make_equations.py

scaling: $(TEST)
	$(BIN)/python docs/make_scaling.py

clean:
	rm -rf .venv build dist *.egg-info .coverage .mypy_cache .ruff_cache
