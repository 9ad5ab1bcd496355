PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

# Own images for the demo (a folder with the magnetic-tile set); empty: synthetic ones.
RAW ?=
# 1 opens the Space at the end of the demo, 0 does not.
DEMO_SERVE ?= 1
# Processes of `make test`; a file of tests stays in one.
TEST_WORKERS ?= 2
# For example `make test PYTEST_ARGS="-m 'not slow'"`.
PYTEST_ARGS ?=

export OMP_WAIT_POLICY := PASSIVE
export GRADIO_ANALYTICS_ENABLED := False
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup demo tables test quality style clean

help:
	@echo "make demo     build data, train, evaluate, open the Space (RAW=folder: real images; DEMO_SERVE=0: no Space)"
	@echo "make tables   rebuild the pages in docs/benchmarks that come from benchmarks/results"
	@echo "make test     all tests"
	@echo "make quality  lint, format check, type check"
	@echo "make style    fix lint and format"
	@echo "make clean    remove build outputs and caches"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[metrics,quantized,space,trackers,test,quality]'
	touch $@

demo: $(STAMP)
	$(BIN)/python scripts/demo.py $(if $(RAW),--raw "$(RAW)") $(if $(filter 0,$(DEMO_SERVE)),--no-serve)

tables: $(STAMP)
	$(BIN)/python -m defect_hub.benchmarks.pages

test: $(STAMP)
	scripts/install_chromium.sh
	$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --durations=15 $(PYTEST_ARGS)

quality: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	scripts/check_types.sh $(BIN)/mypy

style: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
