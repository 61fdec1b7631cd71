# make reproduce   install, run every notebook, build the book      (DATA=folder PROFILE=smoke|mirror|paper JOBS=n)
# make test        install, then lint, tests and every notebook
# make test-slow   the tests that take minutes: kills, exports, every page of the book
# make book        build the book from the notebooks executed so far
# make lab         open the notebooks in JupyterLab
# make clean       remove everything that can be made again (not the virtual environment)
# make UV_TORCH_BACKEND=auto ...   (or cu128) install a CUDA build of torch into a new .venv, not the CPU build
PYTHON  ?= python3
VENV    ?= .venv
# Left empty, mammo chooses: the profile that suits DATA (without DATA: mirror), one chapter per core at a time.
DATA    ?=
PROFILE ?=
JOBS    ?=
# pytest starts one process per core; further threads in each would only wait for one another.
THREADS := $(or $(OMP_NUM_THREADS),1)
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
PROJECT := --constraint constraints.txt --editable '.[book,dev]'
PIP     := $(BIN)/python -m pip install --disable-pip-version-check --quiet
NBMAKE  := --nbmake --nbmake-timeout=600 notebooks/

# uv installs in a quarter of a minute what takes pip several minutes. It does not read pip's configuration, so the
# index and the wheels are passed on.
UV      ?= $(or $(shell command -v uv 2>/dev/null),$(BIN)/uv)
CONFIG   = $(shell $(PYTHON) -m pip config get global.$(1) 2>/dev/null)
INDEX    = $(or $(PIP_INDEX_URL),$(call CONFIG,index-url))
WHEELS   = $(or $(PIP_FIND_LINKS),$(call CONFIG,find-links))
# PyPI's torch for Linux is the CUDA build, 3 GB. uv gets any other build from download.pytorch.org, whatever index is
# configured. A machine with its own package source may not reach that address, so no build is chosen there by default.
SOURCES  = $(INDEX)$(WHEELS)$(PIP_EXTRA_INDEX_URL)$(UV_DEFAULT_INDEX)$(UV_INDEX)$(UV_INDEX_URL)$(UV_FIND_LINKS)
TORCH    = $(or $(UV_TORCH_BACKEND),$(if $(strip $(SOURCES)$(call CONFIG,extra-index-url)),,cpu))
UV_PIP   = $(UV) pip install --quiet --python $(BIN)/python $(addprefix --default-index ,$(INDEX)) \
           $(addprefix --find-links ,$(WHEELS)) $(addprefix --torch-backend ,$(TORCH))

ifneq ($(strip $(DATA)),)
export MAMMO_DATA := $(DATA)
endif

# Container images often forbid Python to write bytecode. Every test process and kernel would then compile its
# libraries again: 30 s instead of 11 s. Here bytecode is kept, below .venv and in __pycache__, which git ignores.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help reproduce test test-slow book lab clean
help:
	@sed -n 's/^# make /make /p' Makefile

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %d.%d: run make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	@command -v $(UV) >/dev/null || $(PIP) --constraint constraints.txt uv || echo "no uv: pip takes minutes" >&2
	$(UV_PIP) $(PROJECT) || $(PIP) $(PROJECT)
	@touch $@

reproduce: $(READY)
	$(BIN)/mammo reproduce $(addprefix --profile ,$(PROFILE)) $(addprefix --jobs ,$(JOBS)) $(if $(DATA),--data "$(DATA)")

test: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -q -n auto -m "not slow" --durations=10 tests/ $(NBMAKE)

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m slow tests/

book: $(READY)
	$(BIN)/jupyter-book build --all book/

lab: $(READY)
	$(BIN)/jupyter lab notebooks/

clean:
	rm -rf _build book/notebooks/*.ipynb ro-crate-metadata.json
