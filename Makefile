# Every target builds what it needs; the first run installs the test environment (some 2 GB), later ones start at once.

SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -c

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := $(VENV)/.peers
CASES  := 1000000

.DEFAULT_GOAL := help
.PHONY: help demo demo-bucket test test-all test-fast tensorflow programs lint format docs bench bench-quick bench-bucket faults fuzz \
  release-check clean

help:            ## show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 20

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; say which to use: make PYTHON=python3.12 …"; exit 1; }
	@echo "── making $(VENV) with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "── installing PyTorch, TensorFlow, Keras, JAX and the test tools (once; a few minutes)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e ".[torch,keras,cli,yaml,s3,gcs,obstore,test]" 2>&1 \
	  | grep --line-buffered -E '^(Collecting|Downloading|Installing|Successfully|ERROR)' | cut -c1-120
	@mkdir -p $(VENV)/src && ln -sfn ../.. $(VENV)/src/keepbest   # the package under its own name, for mypy
	@$(BIN)/python -c "import keepbest" && touch $(READY)

demo: $(READY)   ## train on real images, interrupt, resume, load the best without keepbest (PyTorch, then Keras)
	@$(BIN)/python examples/demo.py

demo-bucket: $(READY)   ## the same in a bucket, on an S3 server that it starts and ends
	@$(BIN)/python examples/demo_bucket.py

test: lint programs $(READY)   ## everything CI runs: lint, types, tests (Keras' slow kill tests on the TensorFlow backend only)
	@$(BIN)/python -m pytest -q -n 2 --ignore tests/adapters/keras --ignore tests/adapters/tensorflow
	@$(MAKE) --no-print-directory -j 2 --output-sync=target tensorflow $(addprefix keras-on-,tensorflow torch jax)

programs:        # the tests of the report open it in Chromium, those of faults trace system calls; where they may, they install it
	@type chromium chromedriver strace openssl &>/dev/null || test "$$(id -u)" != 0 || { echo "── installing Chromium, strace and OpenSSL (once)"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver strace openssl >/dev/null; }

tensorflow: $(READY)   ## the tests of TensorFlow loops, in a process of their own
	@KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -q tests/adapters/tensorflow

keras-on-%: $(READY)
	@KERAS_BACKEND=$* $(BIN)/python -m pytest -q $(if $(filter tensorflow,$*),,-m "not slow") tests/adapters/keras

test-all: test   ## the slow Keras tests on JAX and PyTorch as well
	@KERAS_BACKEND=torch $(BIN)/python -m pytest -q -m slow tests/adapters/keras
	@KERAS_BACKEND=jax $(BIN)/python -m pytest -q -m slow tests/adapters/keras

test-fast: $(READY)   ## the tests that take under a minute together, without Keras and buckets
	@$(BIN)/python -m pytest -q -n 2 -m "not slow and not bucket" --ignore tests/adapters/keras \
	  --ignore tests/adapters/tensorflow

lint: $(READY)   ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@MYPYPATH=$(VENV)/src $(BIN)/mypy --config-file pyproject.toml -m keepbest -p keepbest.core -p keepbest.storage \
	  -p keepbest.adapters -p keepbest.cli -p keepbest.errors
	@MYPYPATH=$(VENV)/src $(BIN)/mypy --config-file pyproject.toml tests/typing/api.py

format: $(READY)   ## rewrite the sources as `make lint` wants them
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

$(PEERS): $(READY)
	@echo "── installing what is compared: Orbax, Lightning, Ignite and Transformers (once)"
	@$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".[bench,peers]"
	@touch $(PEERS)

bench: $(PEERS)   ## compare with torch.save, safetensors, DCP, Orbax, Lightning and Keras, side by side (twenty minutes to an hour)
	@$(BIN)/python benchmarks/run.py

bench-quick: $(PEERS)   ## the large cases, twice each (about a minute)
	@$(BIN)/python benchmarks/run.py --quick

bench-bucket: $(READY)   ## the same for buckets, with s3fs, boto3, obstore, torch.save, DCP and gcsfs (some ten minutes)
	@$(BIN)/python benchmarks/buckets.py

faults: programs $(PEERS)   ## try hard to lose a checkpoint, of keepbest and of others, and say what was lost (half an hour on two cores)
	@$(BIN)/python tests/faults/run.py

fuzz: $(READY)   ## a million inputs to every parser, by what nothing has reached yet (ten minutes; CASES=10000000 for more)
	@$(BIN)/python tests/faults/guided.py --cases $(CASES)

docs: $(READY)   ## the pages as a site, in build/docs
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs && echo "build/docs/index.html"

release-check: $(READY)   ## build the wheel and the sdist, look into both, and try them in environments of their own
	@$(BIN)/python -m pytest -q -n 0 tests/test_release.py

clean:           ## remove everything that was built
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-runs
