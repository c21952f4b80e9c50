# make install | demo | check | test | docs | benchmark | clean        PYTHON=python3.12 picks the Python, PIP_ARGS goes to pip
PYTHON ?= python3
PIP_ARGS ?=
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo check test docs benchmark clean
.DEFAULT_GOAL := install

install: $(STAMP)

# Installed again when the dependencies change; the stamp comes last, so a broken install is not taken for a good one.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e '.[dev]' -c constraints.txt
	touch $@

demo: $(STAMP)
	$(BIN)/plmscope demo

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict src

# One thread for each of the JOBS processes: tiny models gain nothing from more. Files stay whole, for their
# fixtures, and in their order: the longest, which has few tests, would else begin last, with one process idle.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

# The site in site/, without network; a broken link, a missing reference or an undocumented public name ends it. Not with
# --quiet: warnings that are not said are not counted either.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e '.[docs]' -c constraints.txt
	touch $@

benchmark: $(STAMP)
	$(BIN)/python benchmarks/engine.py --jobs $(JOBS)

clean:
	rm -rf $(VENV) build dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
