# Each of these, from nothing but python3 and make, sets up what it needs and runs.
PYTHON ?= python3
# Compiling all of torch, ray and the others takes longer than installing them. Python compiles what it imports, and keeps it.
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE
.PHONY: validate test lint lowest hydra14 wheel clean

validate: env/.installed          ## the main job: is our GPT-2 the real GPT-2?
	env/bin/python -m gpt2x task=validate

test: lint                        ## lint, types and the whole test suite
	env/bin/python -m pytest --durations 30

lint: env/.installed-test
	env/bin/ruff check .
	env/bin/ruff format --check .
	env/bin/mypy

# torch is the newest that the range allows here as well, because PyPI has the oldest for x86-64 Linux only as a build
# for CUDA, of several gigabytes. `make clean lowest TORCH=2.9.0` tests it.
# The machine code in gpt2x/ is of another version of numba.
lowest: export NUMBA_CACHE_DIR = $(CURDIR)/env-lowest/machine-code
lowest: env-lowest/.installed     ## each task once, with the lowest versions of the dependencies that pyproject.toml allows
	tests/smoke.sh env-lowest/bin/python

hydra14: env-hydra14/.installed   ## settings, errors, sweeps and joblib's workers, with the release candidate of Hydra 1.4
	env-hydra14/bin/python -m pytest tests/config tests/cli/test_composer.py tests/cli/test_presets.py tests/cli/test_errors.py tests/runs/test_sweep.py tests/cli/test_launchers.py -k 'not ray'

wheel: env/.installed-test        ## builds dist/gpt2x-*.whl, and does the main job with it, isolated, in an empty folder
	rm -rf dist env-pipx
	env/bin/python -m build --wheel --no-isolation
	mkdir -p env-pipx/launch
	cd env-pipx/launch && PIPX_HOME=$(CURDIR)/env-pipx $(CURDIR)/env/bin/pipx run --pip-args=--no-compile --spec $(CURDIR)/dist/gpt2x-*.whl gpt2x
	test -s env-pipx/launch/runs/validate/*/summary.csv

%/bin/python:
	$(PYTHON) -m venv $* || { rm -rf $*; exit 1; }

env/.installed: env/bin/python pyproject.toml
	env/bin/python $(PIP_INSTALL) -e .
	touch $@

env/.installed-test: env/.installed   # two pips at once in one environment would damage it
	env/bin/python $(PIP_INSTALL) -e '.[test]'
	touch $@

env-lowest/.installed: env-lowest/bin/python pyproject.toml tests/lower_bounds.py
	env-lowest/bin/python tests/lower_bounds.py > env-lowest/constraints.txt
	env-lowest/bin/python $(PIP_INSTALL) -c env-lowest/constraints.txt -e '.[bench]' $(if $(TORCH),torch==$(TORCH))
	touch $@

env-hydra14/.installed: env-hydra14/bin/python pyproject.toml
	env-hydra14/bin/python $(PIP_INSTALL) -e '.[joblib]' 'pytest>=8' 'pytest-xdist>=3.6' \
		hydra-core==1.4.0rc3 omegaconf==2.4.1rc1 hydra-joblib-launcher==1.4.0rc3
	touch $@

clean:
	rm -rf env env-hydra14 env-lowest env-pipx dist
