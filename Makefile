# On a machine with Python 3.10 to 3.13 and make, `make demo` and `make test` need nothing else.

PYTHON ?= python3
VENV ?= .venv
CACHE := .cache
BIN := $(VENV)/bin

.PHONY: demo bench-int8 bench-low-bit bench-layouts bench-layers bench-peers test lint clean

demo: $(VENV)/demo-installed  ## Compile pruned networks, check their answers, and race them against dense runtimes
	$(BIN)/python -m benchmarks.demo

bench-int8: $(VENV)/demo-installed  ## Race int8 networks and single int8 convolutions
	$(BIN)/python -m benchmarks.int8
	$(BIN)/python -m benchmarks.unit_convolutions
	$(BIN)/python -m benchmarks.int8_blocks
	$(BIN)/python -m benchmarks.readme_table

bench-low-bit: $(VENV)/demo-installed  ## Race linear layers of few bits against int8 ones
	$(BIN)/python -m benchmarks.low_bit

bench-layouts: $(VENV)/demo-installed  ## Hold the layouts that are chosen for layers against measurement
	$(BIN)/python -m benchmarks.layouts

bench-layers: $(VENV)/test-installed  ## Race single pruned layers against dense ones of sparsec, PyTorch and OpenVINO
	$(BIN)/python -m benchmarks.sparse_layers

bench-peers: $(VENV)/demo-installed $(CACHE)/deepsparse/installed  ## Race everything against dense runtimes and DeepSparse
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.readme_table

test: $(VENV)/test-installed  ## Run all tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: $(VENV)/test-installed $(CACHE)/types  ## Check style and types
	$(BIN)/ruff check .
	cd $(CACHE)/types && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml

clean:  ## Remove the environment and everything that was built
	rm -rf $(VENV) $(CACHE) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp says that an environment holds what setup.cfg asks for, so that it is installed once.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "sparsec needs Python 3.10 to 3.13; try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo-installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/test-installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

# DeepSparse takes Python 3.11 at most and NumPy 1; where it cannot be installed, its place is left empty.
$(CACHE)/deepsparse/installed:
	@for python in $(PYTHON) python3.11 python3.10; do \
	  $$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12))' 2>/dev/null || continue; \
	  $$python -m venv --clear $(@D) && $(@D)/bin/python -m pip install --quiet deepsparse==1.8.0 'numpy<2' && \
	  touch $@ && exit 0; \
	done; rm -rf $(@D)

# mypy finds packages by their folders, and two of ours lie elsewhere than they are imported from.
.PHONY: $(CACHE)/types
$(CACHE)/types:
	rm -rf $@ && mkdir -p $@/sparsec
	ln -s $(CURDIR)/sparsec/* $(CURDIR)/ir $(CURDIR)/schedules $@/sparsec/
