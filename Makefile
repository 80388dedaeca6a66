# Two commands do all set-up:
#   make demo    ten seconds of music in demo.wav
#   make test    the whole test suite
# and one more for the HTML pages, which needs the system's chromium (apt install chromium):
#   make test-browser
# and one for a machine with an NVIDIA GPU:
#   make test-cuda
# PYTHON=python3.12 make demo chooses the interpreter (3.10 or newer); VENV=/tmp/venv another place for the environment.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= an upbeat bossa nova in G minor with flute and nylon guitar
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test test-browser test-cuda lint format clean help

demo: $(VENV)/.base
	$(BIN)/descant generate "$(DEMO)" --duration 10 --seed 7 -o demo.wav
	@echo
	@echo 'demo.wav holds 10 seconds of "$(DEMO)". What to try next:'
	@echo '  $(BIN)/descant generate "a slow jazz waltz in F with piano and double bass" --seed 3 -o waltz.wav'
	@echo '  $(BIN)/descant generate --genre blues --key E --tempo 90 --duration 30 -o blues.flac'
	@echo '  $(BIN)/descant extend demo.wav --seconds 10 -o longer.wav'
	@echo '  $(BIN)/descant generate --help'

test: $(VENV)/.test
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(PYTEST)

test-browser: $(VENV)/.browser
	$(BIN)/python -m pytest -m browser tests/browser $(PYTEST)

test-cuda: $(VENV)/.test
	$(BIN)/python -m pytest -m cuda tests/lm $(PYTEST)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	.ci/types $(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache demo.wav

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "descant needs Python 3.10 or newer; try PYTHON=python3.11 make")'
	$(PYTHON) -m venv $(VENV)

# An editable install: the checkout is the package. The stamps follow the files that say what to install.
$(VENV)/.base: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) --editable '.[test]'
	$(PIP) --no-deps demucs encodec julius musicnn museval norbert openunmix tinysoundfont
	$(PIP) --no-deps beartype BS-RoFormer einx frozendict hyper-connections PoPE-pytorch rotary-embedding-torch \
		torch-einops-utils
	$(PIP) einops hjson msgpack pydantic setuptools wheel
	DS_BUILD_OPS=0 DS_ACCELERATOR=cpu $(PIP) --no-deps --no-build-isolation deepspeed
	@touch $@

# Only the driver: the browser is the system's, none is downloaded.
$(VENV)/.browser: $(VENV)/.test
	$(PIP) playwright
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) --editable '.[dev]'
	@touch $@
