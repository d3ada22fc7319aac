# `make demo` and `make test` do all the set-up on a fresh Debian machine (Python 3.11).
SHELL := /bin/bash
.DELETE_ON_ERROR:
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
OUT ?= demo-out

TEACHERS := $(addprefix proof-teacher-,movielens-1m amazon-beauty-bert4rec online-retail)
SEEDS := $(addprefix proof-seeds-,movielens-1m amazon-beauty-bert4rec online-retail)
FRONTIERS := $(addprefix proof-frontier-,movielens-1m amazon-beauty-bert4rec online-retail)

.PHONY: help demo test test-system dexer proof-kill proof-rivals proof-support proof-online-retail proof-movielens-1m
.PHONY: proof-web-start $(TEACHERS) $(SEEDS) $(FRONTIERS) lint install tools system clean

help:
	@echo "make demo   install everything, pack the embedded shop's recommender for every target, say where to look"
	@echo "make test   install everything, run linters and all tests"

# System packages are needed once, and only with root can they be installed; without it `edgepack setup`
system:
	@bash .make/system.sh

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml constraints.txt | system
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: edgepack needs Python 3.11 (Debian 12: apt-get install python3.11-venv)." >&2; exit 5; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv  # installs the same set in seconds; pip does it in minutes
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[test]' \
	  || $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

tools: install
	edgepack setup

demo: tools
	edgepack build --out $(OUT)
	mkdir -p $(OUT)/web-app $(OUT)/android-app
	cp -r sample_apps/web/. $(OUT)/web-app
	cp -r sample_apps/android/. $(OUT)/android-app
	edgepack embed $(OUT)/web-wasm-mobile.edgepack --compare $(OUT)/float-web.edgepack --into $(OUT)/web-app
	edgepack embed $(OUT)/android-arm64-mid.edgepack --into $(OUT)/android-app --platform android
	@echo
	@echo "Look next:"
	@echo "  $(OUT)/report.html                                     the whole result, in a browser"
	@echo "  edgepack inspect $(OUT)/android-arm64-mid.edgepack     one bundle, in words"
	@echo "  edgepack check $(OUT)/*.edgepack                       re-read, re-judge and re-run the bundles"
	@echo "  python3 -m http.server --directory $(OUT)/web-app        the web app, at http://localhost:8000"
	@echo "  gradle -p $(OUT)/android-app installDebug                the Android app, onto a phone; or open it in Android Studio"

# First, so that everything missing is installed in one go.
test-system:
	@bash .make/system.sh test

# Keeps what it fetched; without a network the tests that need it say so and are skipped.
dexer: install
	$(BIN)/python -m tests.android.dexer

test: test-system tools dexer lint
	$(BIN)/python -m pytest -n 2 --dist loadfile  # a file shares what it builds; one after the other takes twice as long

# Too long for `make test`; resumable, results in tests/proofs/results.
proof-kill: tools
	$(BIN)/python -m tests.proofs.kill

proof-rivals: tools
	$(BIN)/python -m tests.proofs.rivals movielens-1m

proof-support: tools
	$(BIN)/python -m tests.proofs.support

proof-online-retail proof-movielens-1m: proof-%: tools
	$(BIN)/python -m tests.proofs.dataset $*

# On the demo's bundles, which `make demo` builds; or BUNDLES="paths".
proof-web-start: BUNDLES ?= $(OUT)/web-wasm-mobile.edgepack $(OUT)/web-litert-mobile.edgepack
proof-web-start: tools
	$(BIN)/python -m tests.proofs.web_start $(BUNDLES)

$(TEACHERS): proof-teacher-%: tools
	$(BIN)/python -m tests.proofs.teacher $*

$(SEEDS): proof-seeds-%: tools
	$(BIN)/python -m tests.proofs.seeds $*

$(FRONTIERS): proof-frontier-%: tools
	$(BIN)/python -m tests.proofs.frontier $*

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy models

clean:
	rm -rf $(VENV) .edgepack $(OUT)
