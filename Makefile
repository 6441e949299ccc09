# Two commands for a newcomer: `make demo` and `make test`. Both make .venv; nothing else is needed than git and Python.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# uv, where it is installed, installs the same in a fraction of the time.
UV := $(shell command -v uv 2>/dev/null)

# Compiled modules are kept, whatever the environment says: demo and tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

BEAM := .venv-beam
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT := $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq -y --no-install-recommends

.PHONY: demo test test-fast lint bench browser clean

demo: $(VENV)/.client
	$(BIN)/gcpod demo --dir demo

test: $(VENV)/.test $(BEAM)/.test lint
	$(BIN)/python -m pytest -n 3 -m "not trainer" --ignore tests/beam
	$(BEAM)/bin/python -m pytest -n 2 tests/beam
	$(BIN)/python -m pytest -n 2 --dist loadfile -m trainer --ignore tests/beam

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not trainer and not tools and not long" --ignore tests/beam --hypothesis-profile quick

lint: $(VENV)/.test
	$(BIN)/ruff check gcpod tests benchmarks examples
	$(BIN)/mypy

# Some end with an error that names what they miss; the others are run all the same.
bench: $(VENV)/.test
	@failed=0; for name in startup jobs local_storage dataset_memory packages transfer_lines transfers datasets; do \
	$(BIN)/python benchmarks/$$name.py || failed=1; done; exit $$failed

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

define install
	$(if $(UV),$(UV) pip install --quiet --python $(BIN)/python --editable "$(1)" || ,)$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable "$(1)"
	touch $@
endef

$(VENV)/.client: pyproject.toml | $(VENV)/bin/python
	$(call install,.)

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python browser
	$(call install,.[test])

# Apache Beam holds Google's libraries at older versions, which the rest shall not be tested with.
$(BEAM)/.test: pyproject.toml
	$(PYTHON) -m venv $(BEAM)
	$(BEAM)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[beam,test]"
	touch $@

# Pages are tested in a real browser.
browser:
	@if ! { command -v chromium && command -v chromedriver; } >/dev/null; then \
	{ $(APT) chromium chromium-driver; } || echo "install chromium and chromium-driver to test pages"; fi

clean:
	rm -rf $(VENV) $(BEAM) demo
