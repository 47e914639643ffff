# Each of these, from nothing but python3 and make, sets up what it needs in env/ and runs.
PYTHON ?= python3
.PHONY: validate test clean

validate: env/.installed          ## the main job: is our GPT-2 the real GPT-2?
	env/bin/python -m gpt2x task=validate

test: env/.installed-test         ## lint, types and the whole test suite
	env/bin/ruff check .
	env/bin/ruff format --check .
	env/bin/mypy
	env/bin/python -m pytest

env/bin/python:
	$(PYTHON) -m venv env || { rm -rf env; exit 1; }

env/.installed: env/bin/python pyproject.toml
	env/bin/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

env/.installed-test: env/bin/python pyproject.toml
	env/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@ env/.installed

clean:
	rm -rf env dist
