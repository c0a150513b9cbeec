# From a fresh machine with python3 and a C++ compiler: `make demo` and `make test`.
# Everything lands in $(VENV) and build/. Stamps keep a second run short.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell nproc)
# What tests and linters need on top of the package; tests of missing extras are skipped. `torch`
# and `training` bring PyTorch, `harness` lm-evaluation-harness.
TEST_EXTRAS ?= test,dev,quantize,evaluate,convert
# Peers to compare with. Add `llamacpp` for llama-cpp-python, which compiles for minutes.
BENCH_EXTRAS ?= test,bench,peers
# 0 leaves out the tests that run the demo model (a download of 491 MB).
REAL_MODEL ?= 1
PYTEST_ARGS ?=
BENCH_ARGS ?=
DEMO_PROMPT ?= Write a Python function that returns the n-th Fibonacci number.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

export PATH := $(abspath $(VENV))/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export CMAKE_GENERATOR := Ninja
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
ccache := $(shell command -v ccache)
ifneq ($(ccache),)
export CMAKE_CXX_COMPILER_LAUNCHER := $(ccache)
endif

# The environment's own interpreter; `python` would be the system's until it exists.
py := $(VENV)/bin/python
pip := $(py) -m pip install --quiet

env_stamp := $(VENV)/.stamp-env
build_stamp := $(VENV)/.stamp-build
test_stamp := $(VENV)/.stamp-test
bench_stamp := $(VENV)/.stamp-bench

native_sources := CMakeLists.txt $(shell find cmake cpp -type f)
cpp_files = $(shell find cpp tests/cpp examples -name '*.cpp' -o -name '*.hpp')

.PHONY: help
help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

$(env_stamp): pyproject.toml
	PYTHON="$(PYTHON)" tools/system_packages.sh
	$(PYTHON) -m venv $(VENV)
	$(pip) --upgrade 'pip>=25.1'
	$(pip) --group build
	touch $@

$(build_stamp): $(env_stamp) $(native_sources)
	$(pip) --no-build-isolation --editable .
	touch $@

# The package is installed already, so pip only adds what the extras name.
$(test_stamp): $(build_stamp)
	$(pip) 'ovfast[$(TEST_EXTRAS)]'
	touch $@

$(bench_stamp): $(build_stamp)
	$(pip) 'ovfast[$(BENCH_EXTRAS)]'
	touch $@

.PHONY: build
build: $(build_stamp) ## Make the environment, compile, install in place

.PHONY: demo-model
demo-model: $(build_stamp) ## Download the demo model into the cache, print where it is
	@$(py) tools/demo_model.py

.PHONY: demo
demo: $(build_stamp) ## Everything from nothing to a first answer and its report
	model="$$($(py) tools/demo_model.py)" && \
	    ovfast run "$$model" "$(DEMO_PROMPT)" --max-new-tokens 128

.PHONY: optimum-environment
optimum-environment: $(build_stamp) ## Make the environment that exports through Optimum Intel (tests use it)
	@$(py) tools/optimum_environment.py

.PHONY: gpu-emulation
gpu-emulation: $(build_stamp) ## Make what runs OpenVINO's GPU plugin without a GPU (tests use it)
	PYTHON="$(PYTHON)" tools/system_packages.sh --gpu-emulation
	@$(py) tests/gpu_emulation/prepare.py

.PHONY: test
test: ## Run every test
	@$(MAKE) --no-print-directory test-cpp
	@$(MAKE) --no-print-directory test-python

# Where scikit-build-core builds the package.
package_build = build/$(shell $(py) -c 'import sys, sysconfig; cp = "cp%d%d" % sys.version_info[:2]; \
    print(cp, cp, sysconfig.get_platform().replace("-", "_"), sep="-")')

.PHONY: test-cpp
test-cpp: $(build_stamp) ## Run the C++ tests, in the package's build directory: all is compiled once
	$(call cpp_tests,$(package_build))

.PHONY: test-asan
test-asan: export ASAN_OPTIONS := strict_string_checks=1:detect_stack_use_after_return=1
test-asan: export UBSAN_OPTIONS := print_stacktrace=1
test-asan: $(env_stamp) ## Run the C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(call cpp_tests,build/asan,$(sanitized) -DOVFAST_SANITIZE=address)

.PHONY: test-tsan
test-tsan: export TSAN_OPTIONS := halt_on_error=1
test-tsan: $(env_stamp) ## Run the kernels in several threads under ThreadSanitizer
	$(call cpp_build,build/tsan,$(sanitized) -DOVFAST_SANITIZE=thread,test_linear_threads)
	build/tsan/tests/cpp/test_linear_threads --gtest_brief=1

sanitized := -DCMAKE_BUILD_TYPE=RelWithDebInfo -DOVFAST_PYTHON=OFF

# $(call cpp_build,build directory,CMake options,target)
define cpp_build
PYTHON="$(PYTHON)" tools/system_packages.sh --tests
cmake -S . -B $(1) $(2) -DOVFAST_TESTS=ON -DPython_EXECUTABLE="$(abspath $(py))" \
    --log-level=WARNING
cmake --build $(1) --target $(3)
endef

# $(call cpp_tests,build directory,CMake options)
# Ends with the cases that were skipped, and how many there are.
define cpp_tests
$(call cpp_build,$(1),$(2),ovfast_tests)
ctest --test-dir $(1) --output-on-failure --no-tests=error --parallel $(JOBS) --progress
@awk '/^\[  SKIPPED \] .* ms\)$$/; /^\[=+\] .* ran\./ { n += $$2 } END { print n " cases" }' \
    $(1)/Testing/Temporary/LastTest.log
endef

# Where it cannot be made, the tests that need it are skipped and name the reason.
try_gpu_emulation = @$(MAKE) --no-print-directory gpu-emulation || echo "GPU tests will be skipped" >&2

.PHONY: test-python
ifeq ($(REAL_MODEL),0)
test-python: $(test_stamp)
	$(try_gpu_emulation)
	$(py) -m pytest -m "not real_model" $(PYTEST_ARGS)
else
test-python: $(test_stamp) demo-model ## Run the Python tests (REAL_MODEL=0: without the demo model)
	$(try_gpu_emulation)
	$(py) -m pytest $(PYTEST_ARGS)
endif

.PHONY: stub
stub: $(test_stamp) ## Write python/ovfast/_core.pyi anew from the extension module
	$(py) tools/make_stub.py

.PHONY: lint
lint: $(test_stamp) ## Check style and types
	ruff check
	ruff format --check
	clang-format --dry-run --Werror $(cpp_files)
	mypy

.PHONY: format
format: $(test_stamp) ## Mend style in place
	ruff check --fix-only --exit-zero --quiet
	ruff format
	clang-format -i $(cpp_files)

.PHONY: bench
bench: $(bench_stamp) demo-model ## Measure against the peers, write benchmarks/results
	mkdir -p benchmarks/results
	$(py) -m pytest benchmarks --benchmark-json=benchmarks/results/benchmarks.json $(BENCH_ARGS)
	$(py) benchmarks/report.py benchmarks/results/benchmarks.json

.PHONY: wheel
wheel: $(test_stamp) ## Build the source distribution and the wheel into dist/
	$(py) -m build --outdir dist

.PHONY: clean
clean: ## Remove what was built, but not the environment
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .benchmarks
	rm -f $(build_stamp) $(test_stamp) $(bench_stamp)
	find python tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
