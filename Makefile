# make reproduce   install, run every notebook, build the book      (PROFILE=smoke|mirror|paper DATA=folder JOBS=1)
# make test        install, then lint, tests and every notebook
# make test-slow   the tests that take minutes
# make book        build the book from the notebooks executed so far
# make lab         open the notebooks in JupyterLab
# make clean       remove everything that can be made again (not the virtual environment)
PYTHON  ?= python3
PROFILE ?= smoke
DATA    ?= $(MAMMO_DATA)
JOBS    ?= 1
VENV    ?= .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
PIP     := $(BIN)/python -m pip install --disable-pip-version-check --quiet
NBMAKE  := --nbmake --nbmake-timeout=600 notebooks/

export MAMMO_DATA := $(DATA)
ifeq ($(strip $(MAMMO_DATA)),)
unexport MAMMO_DATA
endif

.PHONY: help reproduce test test-slow book lab clean
help:
	@sed -n 's/^# make /make /p' Makefile

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %d.%d: run make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt --editable '.[book,dev]'
	@touch $@

reproduce: $(READY)
	$(BIN)/mammo reproduce --profile $(PROFILE) --jobs $(JOBS) $(if $(DATA),--data "$(DATA)")

test: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/python -m pytest -q -m "not slow" tests/ $(NBMAKE)

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m slow tests/

book: $(READY)
	$(BIN)/jupyter-book build --all book/

lab: $(READY)
	$(BIN)/jupyter lab notebooks/

clean:
	rm -rf _build book/notebooks/*.ipynb
