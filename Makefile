# make demo: set up, then checkpoint -> bundle -> verdict -> generation on the shipped models.
# make docs: set up, then build the site of docs/ into build/site; a dead link is an error.
# make evidence: set up, then write the reports of docs/validation/ again: some minutes.
# make test: set up, then linters, types, and the full test suite.
# make test-torch: the tests of networks of one's own with the oldest torch that can (TORCH_OLDEST),
#   or with another one by TORCH_OLDEST=2.14.1, in an environment of its own in .torch; it fetches
#   some 3 GB where the index has no torch for the CPU alone.
# make wheel: build a wheel with the native libraries into dist/, and put them into this checkout:
#   the CPU kernels, the session for C++, and where nvcc is found the CUDA kernels and TensorRT
#   plugins. It fetches the headers of ONNX Runtime, nlohmann/json and TensorRT, unless
#   XLSTM_ORT_INCLUDE, XLSTM_JSON_INCLUDE and XLSTM_TRT_INCLUDE name their folders.
# make wheel-aarch64: the same wheel for AArch64, without CUDA, into dist/ alone.
# make gpu-check: set up, then lay out in build/gpu-check what a GPU machine needs, in parts to be
#   carried beside the checkout; there, python3 -m tests.gpu.check PART... --json FILE runs all that
#   only a GPU shows.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check
# torch comes first and pinned: a range would let other packages pull in a CUDA build
TORCH ?= torch==2.13.0
TORCH_OLDEST ?= 2.7.1
# the ONNX Runtimes every bundle must load in, beside the installed one
ORT_VERSIONS := 1.20.1 1.23.2 1.32.0
ORT_DIRS := $(foreach v,$(ORT_VERSIONS),$(CURDIR)/.ort/$(v))
OUT := out
ORT_HEADERS := $(CURDIR)/build/onnxruntime-headers
JSON_HEADERS := $(CURDIR)/build/json-headers
TRT_HEADERS := $(CURDIR)/build/tensorrt-headers
NVCC := $(or $(CUDACXX),$(shell command -v nvcc))
# cu12 or cu13; the wheel's version has it, or cpu: pip keeps a pure 0.1.0 where it is given a 0.1.0
CUDA_TAG := $(if $(NVCC),cu$(shell $(NVCC) --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p'))
define := --config-settings=cmake.define.
CUDA_SETTINGS := $(if $(NVCC),$(define)XLSTM_CUDA=ON $(define)XLSTM_TRT=ON \
  $(define)XLSTM_TRT_INCLUDE=$(abspath $(or $(XLSTM_TRT_INCLUDE),$(TRT_HEADERS))))
SESSION_SETTINGS = --config-settings=wheel.cmake=true $(define)XLSTM_ORT=ON \
  $(define)XLSTM_ORT_INCLUDE=$(abspath $(or $(XLSTM_ORT_INCLUDE),$(ORT_HEADERS))) \
  $(define)XLSTM_SESSION=ON \
  $(define)XLSTM_JSON_INCLUDE=$(abspath $(or $(XLSTM_JSON_INCLUDE),$(JSON_HEADERS)))
LIBRARY := xlstm_export/lib/libxlstm_ort.so
NATIVE := $(addprefix xlstm_export/,lib include cmake)
SOURCES := CMakeLists.txt pyproject.toml xlstm_export/__init__.py \
  $(shell find plugins xlstm_export/ops -type f -not -name '*.pyc')
comma := ,
empty :=
space := $(empty) $(empty)

.PHONY: setup wheel wheel-aarch64 demo evidence docs test test-torch lint gpu-check clean

setup: $(VENV)/.ready

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python $(LIBRARY)
	$(BIN)/pip install $(PIP_FLAGS) $(TORCH)
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[cpu,validate,module,forecast,serve,docs,test$(if $(NVCC),$(comma)rtx)]'
	$(if $(NVCC),$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt tensorrt-lean-$(CUDA_TAG))
	touch $@

# Build isolation brings cmake and ninja where the machine has none; build/native stays, so that a
# second build compiles what has changed.
wheel: | $(BIN)/python
	@command -v $(CXX) >/dev/null || command -v c++ >/dev/null || command -v clang++ >/dev/null || \
	  { echo "make wheel needs a C++17 compiler: install g++ 12 or later, or clang++" >&2; exit 1; }
	$(if $(XLSTM_ORT_INCLUDE),,sh plugins/fetch_onnxruntime_headers.sh $(ORT_HEADERS))
	$(if $(XLSTM_JSON_INCLUDE),,PYTHON=$(BIN)/python sh plugins/fetch_json_headers.sh $(JSON_HEADERS))
	$(if $(NVCC),$(if $(XLSTM_TRT_INCLUDE),,PYTHON=$(BIN)/python sh \
	  plugins/fetch_tensorrt_headers.sh $(TRT_HEADERS)),@echo "No nvcc: without CUDA and TensorRT")
	rm -rf build/unpacked dist/xlstm_export-*_$(shell uname -m).whl
	XLSTM_WHEEL_TAG=$(or $(CUDA_TAG),cpu) $(BIN)/pip wheel $(PIP_FLAGS) --no-deps --wheel-dir dist . \
	  $(SESSION_SETTINGS) $(CUDA_SETTINGS)
	$(BIN)/python -m zipfile -e dist/xlstm_export-*_$(shell uname -m).whl build/unpacked
	rm -rf $(NATIVE)
	mv $(addprefix build/unpacked/,$(NATIVE)) xlstm_export/
	@ls dist/xlstm_export-*_$(shell uname -m).whl $(LIBRARY)

# The CPU's libraries for AArch64, by a cross-compiler; without CUDA.
wheel-aarch64: | $(BIN)/python
	@command -v aarch64-linux-gnu-g++ >/dev/null || \
	  { echo "make wheel-aarch64 needs the package g++-aarch64-linux-gnu" >&2; exit 1; }
	$(if $(XLSTM_ORT_INCLUDE),,sh plugins/fetch_onnxruntime_headers.sh $(ORT_HEADERS))
	$(if $(XLSTM_JSON_INCLUDE),,PYTHON=$(BIN)/python sh plugins/fetch_json_headers.sh $(JSON_HEADERS))
	rm -f dist/xlstm_export-*_aarch64.whl
	_PYTHON_HOST_PLATFORM=linux-aarch64 XLSTM_WHEEL_TAG=cpu $(BIN)/pip wheel $(PIP_FLAGS) \
	  --no-deps --wheel-dir dist . --config-settings=build-dir=build/native-aarch64 \
	  $(SESSION_SETTINGS) $(define)CMAKE_SYSTEM_NAME=Linux $(define)CMAKE_SYSTEM_PROCESSOR=aarch64 \
	  $(define)CMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ $(define)CMAKE_STRIP=aarch64-linux-gnu-strip
	@ls dist/xlstm_export-*_aarch64.whl

$(LIBRARY): $(SOURCES)
	$(MAKE) wheel

.ort/%/onnxruntime/__init__.py: | $(VENV)/.ready
	$(BIN)/pip install $(PIP_FLAGS) --no-deps --target .ort/$* onnxruntime==$*
	touch $@

# the real tritonserver, and a numpy that the stub of its Python backend can read
.triton/pytriton/__init__.py: | $(VENV)/.ready
	$(BIN)/pip install $(PIP_FLAGS) --no-deps --target .triton nvidia-pytriton==0.7.0 numpy==1.26.4
	touch $@

demo: setup
	BIN=$(BIN) OUT=$(OUT) bash recipes/demo/run.sh

# the reports of docs/validation/, and the pages of them for people
evidence: setup
	$(BIN)/python -m benchmarks.evidence --html $(OUT)/evidence

# --quiet would silence the warnings before --strict counts them
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint $(foreach v,$(ORT_VERSIONS),.ort/$(v)/onnxruntime/__init__.py) .triton/pytriton/__init__.py
	XLSTM_ORT_DIRS=$(subst $(space),:,$(ORT_DIRS)) $(BIN)/python -m pytest -n 2 --dist worksteal -q $(PYTEST_ARGS)

# Everything but torch is the environment's; triton too, since torch's own of then asks for a GPU
# where upstream's kernels are only imported.
.torch/%/.ready: | $(VENV)/.ready
	$(BIN)/python -m venv .torch/$*
	.torch/$*/bin/pip install $(PIP_FLAGS) torch==$*
	.torch/$*/bin/pip uninstall $(PIP_FLAGS) --yes triton
	$(BIN)/python -c "import sysconfig as s; print(s.get_path('purelib'))" \
	  > "$$(.torch/$*/bin/python -c "import sysconfig as s; print(s.get_path('purelib'))")/main.pth"
	touch $@

test-torch: .torch/$(TORCH_OLDEST)/.ready
	.torch/$(TORCH_OLDEST)/bin/python -m pytest -q -n 0 tests/modules \
	  --ignore tests/modules/test_module_engine.py $(PYTEST_ARGS)

gpu-check: demo wheel
	$(BIN)/python -m tests.gpu.prepare build/gpu-check

clean:
	rm -rf $(VENV) .ort .torch .triton $(OUT) build dist $(NATIVE)
