SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.prunekit-env

.PHONY: env demo check test laws zoo same help

help:
	@echo "make env    create $(VENV) and install prunekit and prunekit-sam from constraints.txt"
	@echo "make demo   slim the bundled model by half with the whole slimsam recipe (under 5 minutes on 2 cores)"
	@echo "make check  lint, format, types, import contracts"
	@echo "make test   check, then every test"
	@echo "make laws   the laws over thousands of random networks, for a nightly run"
	@echo "make same   plans, weights and reports of this tree against those of a commit (make same BASE=06fa1a4)"
	@echo "make zoo    prune every architecture of ../shared/zoo, report in docs/zoo.md (ZOO_FLAGS='--resume --only hf/')"

env: $(STAMP)

$(STAMP): pyproject.toml plugins/sam/pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]' -e plugins/sam
	touch $@

demo: env
	$(BIN)/prunekit prune --recipe slimsam --out out/demo

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/pytest -q

laws: env
	PRUNEKIT_LAW_EXAMPLES=3000 $(BIN)/pytest -q --timeout 0 tests/laws

# Torch-Pruning is compared with, not depended on
zoo: env
	$(BIN)/python -c "import torch_pruning" 2>/dev/null || $(BIN)/python -m pip install --quiet torch-pruning==1.6.1
	$(BIN)/python -m benchmarks.zoo --jobs 2 --against torch-pruning $(ZOO_FLAGS)

same: env
	@test -n "$(BASE)" || { echo "say with which commit: make same BASE=06fa1a4"; exit 2; }
	$(BIN)/python -m benchmarks.same --base $(BASE) $(SAME_FLAGS)
