# make demo: set up, then checkpoint -> bundle -> verdict -> generation on the shipped models.
# make test: set up, then linters, types, and the full test suite.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# torch comes first and pinned: a range would let other packages pull in a CUDA build
TORCH ?= torch==2.13.0
# the ONNX Runtimes every bundle must load in, beside the installed one
ORT_VERSIONS := 1.20.1 1.23.2
ORT_DIRS := $(foreach v,$(ORT_VERSIONS),$(CURDIR)/.ort/$(v))
OUT := out
empty :=
space := $(empty) $(empty)

.PHONY: setup demo test lint clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,validate,test]'
	touch $@

.ort/%/onnxruntime/__init__.py: | $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .ort/$* onnxruntime==$*
	touch $@

demo: setup
	BIN=$(BIN) OUT=$(OUT) bash recipes/demo/run.sh

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint $(foreach v,$(ORT_VERSIONS),.ort/$(v)/onnxruntime/__init__.py)
	XLSTM_ORT_DIRS=$(subst $(space),:,$(ORT_DIRS)) $(BIN)/python -m pytest -n 2 -q $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) .ort $(OUT) build dist
