# The commands of the README are `make demo`, `make test` and `make docs`; everything they need is made on the way.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# worksteal gives a worker neighbouring tests, so that fixtures of a module, a session and Ray are seldom made twice.
PYTEST_ARGS ?= -n auto --dist worksteal --durations 20

.PHONY: demo docs test test-slow test-all lint types pytest fuzz attack bench clean

demo: $(VENV)/.installed
	$(BIN)/refcocom score dataset=sample predictions=sample output_dir=demo overwrite=true

# A warning, such as a link that leads nowhere, is an error.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Minutes; the tests that take longest, such as those that train, are in `make test-slow`, which CI runs too.
test: lint types pytest

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m slow

test-all: test test-slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

pytest: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not slow"

# The property tests with many more examples; minutes, not part of `make test`.
fuzz: $(VENV)/.installed-dev
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest $(PYTEST_ARGS) tests -m "not slow" -k "not test_docs"

# Kills, flipped bits, full disks, pipes and bombs against all that is kept and read; some twenty minutes.
attack: $(VENV)/.installed-dev
	$(BIN)/python tests/attack.py

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo site dist build

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,bench]'
	touch $@
