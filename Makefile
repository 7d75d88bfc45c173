# `make` lists the targets. Everything runs in .venv, which the first target that needs it makes.
#
# Settings, given as `make TARGET NAME=value`:
#   PROFILE        what `make reproduce` runs and `make lab` opens: smoke, cpu (default), seeds, gpu, paper, your own
#   DATA, SCIBERT  files that `make study` copies to runs/lpm24: L+M-24's additional_data.zip, SciBERT's vocab.txt
#   ARGS           more arguments for the target's own command, as in: make test ARGS='-k environment'
#   PYTHON         the Python that .venv is made from, 3.11 or newer (default: python3)
#   TORCH_BACKEND  the build of torch: auto (default), cpu, cu128, ... With uv, auto looks for a GPU; with pip, auto
#                  is PyPI's wheel (CUDA on Linux). Where PIP_FIND_LINKS names a wheel folder, that decides instead.
#   UV             the uv to install with (default: the one on the PATH; `UV=` installs with pip all the same)
#   V=1            let the installer show its progress

PROFILE ?= cpu
ARGS ?=
PYTHON ?= python3
TORCH_BACKEND ?= auto
UV ?= $(shell command -v uv 2>/dev/null)
V ?=

ifeq ($(wildcard requirements.lock),)
$(error No requirements.lock here: run make in the repository's folder, or as make -C FOLDER)
endif

# POSIX sh, no .ONESHELL: the make 3.81 of macOS has to read this file too.
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# Nothing the caller has activated or set may change what the programs in .venv import or start.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
# Where it is followed by exec, a signal that make passes on reaches the program itself, not a shell before it.
IN_VENV := PATH="$(CURDIR)/.venv/bin:$$PATH"

.DEFAULT_GOAL := help
.PHONY: help env lock reproduce rehearse smoke study study-check test test-programs lab embedded-models bench torture lint audit clean FORCE

help: ## list the targets
	@echo "make TARGET [PROFILE=cpu] [ARGS='...'] [PYTHON=python3] [TORCH_BACKEND=auto]; the Makefile's head explains them"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' Makefile | while read -r name text; do \
		printf '  %-16s %s\n' "$$name" "$$text"; done

env: .venv/.installed ## make .venv from requirements.lock (every other target does it when needed)

reproduce: .venv/.installed ## run the eight notebooks at PROFILE and regenerate figures/
	@echo "running notebooks 01 to 08 at profile $(PROFILE)"
	@export $(IN_VENV); exec .venv/bin/lmolt reproduce --profile $(PROFILE) $(ARGS)

smoke: .venv/.installed ## the same eight notebooks, small, in under three minutes
	@echo "running notebooks 01 to 08 at profile smoke"
	@export $(IN_VENV); exec .venv/bin/lmolt reproduce --profile smoke $(ARGS)

rehearse: .venv/.installed ## the papers' profile on a CPU: the same models and data in small and random
	@echo "running notebooks 01 to 08 at profile rehearsal"
	@.venv/bin/python -m tools.rehearsal
	@$(IN_VENV) .venv/bin/lmolt reproduce --profile rehearsal $(ARGS)

study: .venv/.installed ## the papers' claims on L+M-24's real molecules; DATA=additional_data.zip SCIBERT=vocab.txt at first
	@export $(IN_VENV) DATA="$(DATA)" SCIBERT="$(SCIBERT)"; exec .venv/bin/python -m tools.study $(ARGS)

study-check: .venv/.installed ## decide every claim again from the study's committed numbers
	@.venv/bin/python -m tools.study check

test: .venv/.installed ## run all tests, notebooks included (ten minutes)
	@echo "running the tests with pytest"
	@$(IN_VENV) .venv/bin/python -m pytest $(ARGS)

test-programs: ## Chromium and LaTeX, by apt as root: without them two tests skip
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium texlive-latex-recommended

lab: .venv/.installed ## open copies of the notebooks, set to PROFILE, in JupyterLab (runs/PROFILE/lab)
	@echo "starting JupyterLab on the notebooks of profile $(PROFILE) (stop it with Ctrl-C)"
	@export $(IN_VENV); exec .venv/bin/lmolt lab --profile $(PROFILE) -- $(ARGS)

embedded-models: .venv/.installed ## train the models shipped in the package again, from nothing
	@echo "training the embedded models"
	@$(IN_VENV) .venv/bin/python -m tools.embedded_models $(ARGS)

bench: .venv/.installed ## measure the wall time of each notebook
	@echo "measuring times"
	@$(IN_VENV) .venv/bin/python -m benchmarks.profile $(ARGS)

torture: .venv/.installed ## kill, damage and starve the smoke run 200 times; the same bytes must come out (hours)
	@export $(IN_VENV); exec .venv/bin/python -m tools.torture $(ARGS)

lint: .venv/.installed ## ruff check, ruff format --check, mypy
	@echo "checking with ruff and mypy"
	@.venv/bin/ruff check $(ARGS) .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

audit: ## ask PyPI for known vulnerabilities of what requirements.lock names (pip-audit, in a folder of its own)
	@echo "auditing requirements.lock"
	@[ -x build/audit/bin/pip-audit ] || { "$(PYTHON)" -m venv build/audit && \
		build/audit/bin/pip install --disable-pip-version-check -qq pip-audit; }
	@build/audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements.lock $(ARGS)

clean: ## remove caches and build products; .venv, runs/ and figures/ stay
	@echo "removing caches and build products (for the rest: rm -rf .venv runs)"
	@rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . \( -path ./.venv -o -path ./runs -o -path ./.git \) -prune -o \
		\( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------------- environment

IS_NEW_ENOUGH := sys.exit(sys.version_info < (3, 11))
QUIET := $(if $(V),,--quiet)
TORCH := $(shell sed -n '/^torch==/p' requirements.lock 2>/dev/null)

# Both are one shell script, continued below. `$$base` is the Python that PYTHON stands for.
ifneq ($(strip $(UV)),)
IMPORTS := sys
INSTALLER := uv, one to two minutes
CREATE := "$(UV)" venv $(QUIET) --allow-existing --python "$$base" .venv
INSTALL := \
	if [ -n "$$PIP_FIND_LINKS" ]; then \
		UV_FIND_LINKS=$$(echo "$$PIP_FIND_LINKS" | tr -s ' ' ','); export UV_FIND_LINKS; backend=; \
	else backend=--torch-backend=$(TORCH_BACKEND); fi; \
	"$(UV)" pip install $(QUIET) --python .venv/bin/python --compile-bytecode $$backend -r requirements.lock; \
	"$(UV)" pip install $(QUIET) --python .venv/bin/python --no-deps -e .
else
INSTALLER := pip, about five minutes
IMPORTS := pip, sys
# torch first and alone, so that nothing else settles which build of it comes.
CREATE := "$$base" -m venv .venv
INSTALL := \
	pip=".venv/bin/python -m pip install --disable-pip-version-check $(if $(V),,-qq)"; \
	if [ -n "$$PIP_FIND_LINKS" ] || [ "$(TORCH_BACKEND)" = auto ]; then index=; \
	else index=--extra-index-url=https://download.pytorch.org/whl/$(TORCH_BACKEND); fi; \
	$$pip $$index $(TORCH); \
	$$pip -r requirements.lock; \
	$$pip --no-deps -e .
endif

# .venv/.installing stands while packages are being written and becomes the stamp by one rename, so an interrupted
# installation is recognised and begun again (finished downloads are in the installer's cache). The stamp holds the
# folder's path: a .venv that was copied or moved would run the other folder's code, and is made anew.
MOVED_OR_BROKEN := $(shell [ "$$(cat .venv/.installed 2>/dev/null)" = "$$(pwd -P)" ] && \
	[ -x .venv/bin/python ] || echo FORCE)

.venv/.installed: requirements.lock pyproject.toml $(MOVED_OR_BROKEN)
	@set -e; \
	base=$$("$(PYTHON)" -c 'import sys; print(sys.executable)' 2>/dev/null) || { \
		echo "error: $(PYTHON) does not run; install Python 3.11 or newer, or name it: make PYTHON=/path/to/python" >&2; \
		exit 1; }; \
	"$$base" -c 'import sys; $(IS_NEW_ENOUGH)' || { \
		echo "error: $(PYTHON) is $$("$$base" -V 2>&1), but 3.11 or newer is needed;" \
			"name another: make PYTHON=/path/to/python" >&2; \
		exit 1; }; \
	if command -v flock >/dev/null; then \
		exec 9<requirements.lock; \
		flock -n 9 || { echo "another make is installing into .venv: waiting for it"; flock 9 || true; }; \
	fi; \
	mkdir -p .venv; \
	if [ -e .venv/.installing ]; then why="the last installation was interrupted"; \
	elif [ -e .venv/.installed ] && [ "$$(cat .venv/.installed)" != "$$(pwd -P)" ]; then \
		why="this one was made in another folder"; \
	elif ! .venv/bin/python -c 'import $(IMPORTS); $(IS_NEW_ENOUGH)' 2>/dev/null; then why=; \
	else why=keep; fi; \
	touch .venv/.installing; \
	rm -f .venv/.installed; \
	if [ "$$why" = keep ]; then \
		echo "bringing .venv up to requirements.lock"; \
	else \
		echo "making .venv from requirements.lock (once; $(INSTALLER) and the download)$${why:+: $$why}"; \
		find .venv -mindepth 1 -maxdepth 1 ! -name .installing -exec rm -rf {} +; \
		$(CREATE); \
	fi; \
	trap '[ -e .venv/.installed ] || echo "error: the installation did not finish; type the command again:" \
		"it begins anew, with the downloads it has" >&2' EXIT; \
	trap 'exit 130' INT TERM; \
	$(INSTALL); \
	pwd -P >.venv/.installing; \
	mv .venv/.installing .venv/.installed

# Versions stay as they are unless a range in pyproject.toml or ARGS=--upgrade moves them. torch is left to the backend:
# a pin without a build tag would choose the CUDA build and bring its libraries into the lock.
lock: ## compile requirements.lock again with uv (newest: ARGS=--upgrade)
	@[ -n "$(strip $(UV))" ] || { echo "error: make lock needs uv (pip install uv)" >&2; exit 1; }
	@echo "compiling requirements.lock from pyproject.toml"
	@set -e; \
	new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	sed '/^torch==/d' requirements.lock >"$$new/pins"; \
	if [ -n "$$PIP_FIND_LINKS" ]; then \
		UV_FIND_LINKS=$$(echo "$$PIP_FIND_LINKS" | tr -s ' ' ','); export UV_FIND_LINKS; backend=; \
	else backend=--torch-backend=cpu; fi; \
	"$(UV)" pip compile --quiet pyproject.toml --extra dev --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links $$backend -o "$$new/pins" $(ARGS); \
	{ grep '^#' requirements.lock; sed -n 's/+.*//; /^[^#]*==/p' "$$new/pins"; } >requirements.lock.part; \
	mv requirements.lock.part requirements.lock
