# Each target works as the first command in a fresh clone: it makes .venv and installs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test lint install clean

quickstart: $(INSTALLED)
	$(BIN)/python -m tfhash.train --flagfile=configs/ssgah.flags --model_dir=runs/quickstart
	$(BIN)/python -m tfhash.export --model_dir=runs/quickstart
	$(BIN)/python examples/query_saved_model.py runs/quickstart

test: lint
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .

install: $(INSTALLED)

# PIP_CONSTRAINT also holds for the packages of isolated builds.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tfhash needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[onnx,serving,test]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
