# Each target works as the first command in a fresh clone: it makes .venv and installs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.installed-docs
BEAM := .venv-beam
BEAM_INSTALLED := $(BEAM)/.installed
# mypy looks for packages by their names; it finds export/ and serving/ here as tfhash.export and
# tfhash.serving.
TYPES := build/types

.PHONY: quickstart test beam lint types docs mutants install clean

quickstart: $(INSTALLED)
	$(BIN)/python -m tfhash.train --flagfile=configs/ssgah.flags --model_dir=runs/quickstart
	$(BIN)/python -m tfhash.export --model_dir=runs/quickstart
	$(BIN)/python examples/query_saved_model.py runs/quickstart
	$(BIN)/python examples/digits_as_files.py runs/quickstart/photos
	$(BIN)/python -m tfhash.search build --index=runs/quickstart/index --images='runs/quickstart/photos/**' --model=runs/quickstart/export
	@echo
	@echo "To look around: $(BIN)/python -m tfhash.search page --index=runs/quickstart/index"

# A file of tests runs in one process; two processes, whatever the machine, for TensorFlow is large.
test: lint
	$(BIN)/python -m pytest -n 2 --dist=loadfile --no-loadscope-reorder

# The tests of tfhash.serving.bulk, in an environment of their own.
beam: $(BEAM_INSTALLED)
	$(BEAM)/bin/python -m pytest tests/beam

# For the night: puts faults into the sources and says which of them the tests notice.
mutants: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mutants]'
	$(BIN)/python tests/mutants.py --count=150

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory types

types: $(INSTALLED)
	@mkdir -p $(TYPES)/tfhash
	@ln -sfn $(CURDIR)/export $(TYPES)/tfhash/export
	@ln -sfn $(CURDIR)/serving $(TYPES)/tfhash/serving
	$(BIN)/mypy

docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: $(INSTALLED)

# PIP_CONSTRAINT also holds for the packages of isolated builds.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "tfhash needs Python 3.11 to 3.13, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[faiss,onnx,page,postgres,serving,test,weights]'
	touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# What a worker needs, pytest, and what makes files for ONNX Runtime: without all that trains, which
# is so seen not to be imported.
$(BEAM_INSTALLED): setup.cfg constraints-beam.txt
	$(PYTHON) -m venv $(BEAM)
	$(BEAM)/bin/python -m pip install --quiet --upgrade pip
	$(BEAM)/bin/python -m pip install --quiet --constraint constraints-beam.txt \
		apache-beam google-crc32c grpcio-health-checking onnx onnxruntime pandas pillow pyarrow pytest \
		tensorflow tensorflow-serving-api tf2onnx tqdm
	$(BEAM)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) $(BEAM) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
