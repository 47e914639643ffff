"""Random command lines: whatever the input is, one line says what is wrong, and nothing is left behind."""

import logging
import os
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt2x.cli.help import groups, setting_types
from gpt2x.cli.main import main
from gpt2x.errors import UserError
from gpt2x.tasks.registry import Task
from tests.conftest import Result

OF_HYDRA = (
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.mode", "hydra.searchpath", "hydra.verbose"),
    *("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweeper.max_batch_size"),
    *("hydra.sweeper.params", "hydra.sweeper.params.seed", "hydra.job.env_set", "hydra.job.env_copy"),
    *("hydra", "hydra.callbacks", "hydra.job.chdir", "hydra.output_subdir", "hydra/help", "hydra.help"),
)
UNKNOWN = ("other", "", "a.b.c", "task.name", "0", "prompt.0", "schema", "schema/task", "_self_", "defaults", "é")
PLAIN = ("1", "0", "-1", "nan", "inf", "1e400", "abc", "null", "true", "", "9" * 30, "007", "nano", "greedy", "cpu")
CONTAINERS = ("[]", "[1,2]", "{}", "{a:1}", "{a:{b:[1]}}", "{1:2}", "[a,[b,{c:d}]]", "[${seed}]", "{a:${seed}}", "[1")
SWEEPS = (
    "1,2",
    "a,b",
    "range(1,3)",
    "range(1,1)",
    "choice(1,2)",
    "interval(0,1)",
    "glob(*)",
    "shuffle(1,2)",
    "sort(1,a)",
)
FUNCTIONS = ("int(a)", "float(1)", "json_str({a:1})", "f(x)", "tag(x,choice(1,2))", "int(", "bool(x)", "str([1])")
INTERPOLATIONS = (
    *("${seed}", "${nope}", "${oc.env:NOPE}", "${oc.create:[1]}", "${oc.decode:'}", "${hydra:job.num}", "${hydra:x}"),
    *("${stamp:}", "${stamp:1}", "${job_key:}", "${settings_help:}", "${", "${}", '"${seed}"', '"\\${seed}"', "$"),
)
TEXTS = (
    "'",
    '"',
    "'a",
    '"a',
    '"a b"',
    "it's",
    "a b",
    "a: b",
    "a=b",
    "é漢🙂",
    "\x1b[31m",
    "\t",
    "a\nb",
    "\x01",
    "\udcff",
)
PATHS = ("x" * 300, "../x", "/proc/x", "~nouser/x", ".", "..", "a/b", "???", "pkg://x", "[file:///nope]")
FLAGS = (
    *("--help", "--hydra-help", "--cfg", "job", "--cfg=all", "--resolve", "--package", "-p", "--run", "--info", "-i"),
    *(
        "defaults",
        "-sc",
        "install=bash",
        "query=bash",
        "--config-dir",
        "-cp",
        "-cn",
        "--experimental-rerun",
        "--version",
    ),
    *("--", "-", "--foo", "--prompt", "--top-k", "5", "--=", "-x", "generate", "Hello", "=", "=1", "+", "~", "@", "a="),
)
VALID = (
    *("task=generate", "task=train", "task=benchmark", "decode=greedy", "seed=1,2", "model=nano", "experiment=dtypes"),
    *("hydra.sweep.dir=sweep", "hydra.run.dir=run", "weights=random", "prompt=hi", "notes=n", "-m", "-m"),
)

keys = st.sampled_from((*setting_types(), "sweep_prompts", *groups(), *OF_HYDRA, *UNKNOWN))
values = st.sampled_from((*PLAIN, *CONTAINERS, *SWEEPS, *FUNCTIONS, *INTERPOLATIONS, *TEXTS, *PATHS))
texts = st.text(st.characters(blacklist_characters="\0"), max_size=8)
prefixes = st.sampled_from(("", "", "", "", "+", "++", "~"))
suffixes = st.sampled_from(("", "", "", "", "", "@a", "@a:b", ".", "[0]"))
overrides = st.tuples(prefixes, keys, suffixes, st.just("="), st.one_of(values, texts)).map("".join)
words = st.one_of(st.sampled_from(VALID), overrides, overrides, st.sampled_from(FLAGS), texts)
# Most lines of many random words fail at the first of them: these have one task and one or two settings.
settings_of_hydra = st.tuples(st.sampled_from(OF_HYDRA), st.just("="), values).map("".join)
plain = st.tuples(st.sampled_from((*setting_types(), "sweep_prompts", *groups())), st.just("="), values).map("".join)
short = st.tuples(
    st.sampled_from(("task=generate", "task=train", "task=validate", "task=benchmark")),
    st.one_of(settings_of_hydra, plain),
    st.one_of(settings_of_hydra, plain, st.sampled_from(("-m", "--help", "decode=greedy", "weights=random"))),
    st.sampled_from(("-m", "seed=0")),
).map(list)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task refuses its input at once, so that only what comes before its work is tested."""

    def refuse(config: Any, task: Any, folder: Path) -> None:
        raise UserError("enough")

    monkeypatch.setattr(Task, "load", lambda task: refuse)


def run(arguments: list[str]) -> Result:
    out, err, before = StringIO(), StringIO(), sys.argv
    level, handlers = logging.root.level, logging.root.handlers[:]
    sys.argv = ["gpt2x", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = int(main())
    finally:
        sys.argv = before
        logging.root.setLevel(level)  # --info sets both
        logging.root.handlers[:] = handlers
    return Result(code, out.getvalue(), err.getvalue())


@settings(
    max_examples=200,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(arguments=st.one_of(st.lists(words, max_size=5), short))
def test_no_command_line_ends_in_a_traceback(quick: None, launch: Path, arguments: list[str]) -> None:
    environment = set(os.environ)
    result = run(arguments)
    left = sorted(path.relative_to(launch).as_posix() for path in launch.rglob("*"))
    for path in launch.iterdir():
        shutil.rmtree(path)
    assert result.code in (0, 1, 2, 3), result
    assert "Traceback" not in result.err
    if result.code == 2:
        assert result.err.endswith("\n"), result
        assert result.err.count("\n") == 1, result
        assert result.err.startswith("gpt2x: error: "), result
        assert left == []
    assert set(os.environ) - environment <= {"HYDRA_FULL_ERROR", "HYDRA_MAIN_MODULE"}
    assert Path.cwd() == launch
