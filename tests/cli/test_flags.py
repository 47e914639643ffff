"""Every flag of Hydra works, or is refused in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPO, Cli, Refused, assert_in


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--resolve"], ["--resolve", "--cfg"]),
        (["--resolve", "seed=1"], ["--resolve", "--cfg"]),
        (["--cfg", "hydra", "--resolve"], ["--resolve", "--cfg"]),
        (["--package", "decode"], ["--package", "--cfg"]),
        (["--cfg", "job", "--package", "nope"], ["nope", "not found"]),
        (["--cfg", "nope"], ["--cfg", "nope"]),
        (["--info", "nope"], ["--info", "nope"]),
        (["--config-dir", "nope"], ["nope", "not found"]),
        (["--config-path", "x"], ["--config-path", "--config-dir"]),
        (["--config-name", "x"], ["--config-name", "--config-dir"]),
        (["--experimental-rerun", "x"], ["--experimental-rerun"]),
        (["--mul"], ["--mul"]),
        (["-sc"], ["install=SHELL"]),
        (["-sc", "install=csh"], ["install=SHELL"]),
        (["-sc", "query=bash"], ["COMP_LINE"]),
        (["hydra.callbacks=null"], ["hydra.callbacks", "hydra.run.dir"]),
        (["hydra.output_subdir=x"], ["hydra.output_subdir"]),
        (["hydra.run.dir=null"], ["hydra.run.dir=null", "folder"]),
        (["-m", "seed=1,2", "hydra.sweep.subdir=a/b"], ["hydra.sweep.subdir=a/b"]),
        (["-m", "task=generate", "seed=range(1,1)"], ["no jobs"]),
        (["-m", "hydra.sweeper.params={seed: 1}"], ["hydra.sweeper.params"]),
        (["hydra.sweeper.params.nope=1,2", "-m"], ["nope: no such setting"]),
        (["hydra.sweeper.params.seed=1,2", "task=generate"], ["add -m"]),
        (["+other=1"], ["other", "no such setting"]),
        (["~seed"], ["~seed", "cannot be removed"]),
        (["~decode"], ["~decode", "cannot be removed"]),
        (["decode@here=greedy"], ["decode=greedy"]),
        (["+decode@here=greedy"], ["decode=greedy"]),
        (["notes=a,b", "-m"], ["notes=a,b"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_refused_in_one_line(refused: Refused, args: list[str], words: list[str]) -> None:
    assert_in(refused(*args), *words)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--cfg", "job", "++decode.top_k=3"], ["top_k: 3"]),
        (["--cfg", "job", "--resolve", "seed=${weights.seed}", "weights.seed=7"], ["\nseed: 7"]),
        (["--cfg", "all"], ["hydra:", "notes: null"]),
        (["--cfg", "hydra"], ["hydra:"]),
        (["--cfg", "job", "--package", "decode"], ["# @package decode", "top_p: null"]),
        (["--hydra-help"], ["--multirun"]),
        (["experiment=dtypes", "~hydra.sweeper.params.dtype", "--cfg", "job"], ["dtype: float32"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_they_work(gpt2x: Cli, launch: Path, args: list[str], words: list[str]) -> None:
    result = gpt2x(*args)
    assert (result.code, result.err) == (0, "")
    assert_in(result.out, *words)
    assert list(launch.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "Config search path"),
        (["all"], "Config search path"),
        (["config"], "top_p: null"),
        (["defaults"], "decode/sample"),
        (["defaults-tree"], "decode: sample"),
        (["plugins"], "BasicLauncher"),
        (["searchpath"], "/conf"),
    ],
    ids=str,
)
def test_info(gpt2x_process: Cli, args: list[str], words: str) -> None:
    result = gpt2x_process("--info", *args)  # in a process of its own, as Hydra keeps the stream that it logs to
    assert (result.code, result.err) == (0, "")
    assert words in result.out


@pytest.mark.parametrize(
    "override", ["hydra.sweeper.params.seed=1,2", "+hydra.sweeper.params.seed=1,2", "hydra.sweeper.params.seed='1,2'"]
)
def test_parameters_of_the_sweeper(gpt2x: Cli, launch: Path, override: str) -> None:
    assert gpt2x("-m", "task=generate", "decode.max_new_tokens=1", override, "hydra.sweep.dir=out").code == 0
    assert len(list((launch / "out").glob("*/job.json"))) == 2


def complete(line: str, install: str, launch: Path) -> list[str]:
    """What bash completes a command line to, after the code for completion has been installed."""
    script = f"""
eval "$({install} -sc install=bash)"
COMP_LINE={line!r} COMP_WORDS=({line}) COMP_POINT={len(line)}
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
$(complete -p ${{COMP_WORDS[0]}} | grep -o -- '-F [^ ]*' | cut -c4-)
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    (launch / "bin").mkdir(exist_ok=True)
    command = launch / "bin" / "gpt2x"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m gpt2x "$@"\n')
    command.chmod(0o755)
    path = f"{launch / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(REPO)}
    done = subprocess.run(["bash", "-c", script], cwd=launch, env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("program", ["gpt2x", "python -m gpt2x"])
def test_completion_in_bash(launch: Path, program: str) -> None:
    assert complete(f"{program} task=g", program, launch) == ["task=generate"]
    assert complete(f"{program} task=generate decode.top", program, launch) == ["decode.top_k=", "decode.top_p="]
    assert complete(f"{program} --nonsense dec", program, launch) == []  # without an error between prompts


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_completion_is_printed(gpt2x: Cli, shell: str) -> None:
    for action in ("install", "uninstall"):
        result = gpt2x("-sc", f"{action}={shell}")
        assert (result.code, result.err) == (0, "")
        assert result.out.strip()


def test_a_launch_folder_that_is_gone(gpt2x: Cli, launch: Path) -> None:
    launch.rmdir()
    assert_in(gpt2x("task=generate").error(), "the folder in which gpt2x was started no longer exists")


def test_options_of_the_users_own(gpt2x: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "decode").mkdir(parents=True)
    (folder / "decode" / "nucleus.yaml").write_text("defaults: [sample, _self_]\ntop_p: 0.9\n")
    result = gpt2x("--config-dir", str(folder), "task=generate", "decode=nucleus", "--cfg", "job")
    assert yaml.safe_load(result.out)["decode"]["top_p"] == 0.9


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-m", "seed=1,2", "hydra.run.dir=x"], "for a sweep, give hydra.sweep.dir=DIR"),
        (["seed=1", "hydra.sweep.dir=x"], "add -m; for a run on its own, give hydra.run.dir=DIR"),
    ],
)
def test_a_folder_that_the_command_does_not_use_is_refused(refused: Refused, args: list[str], words: str) -> None:
    assert_in(refused("task=generate", *args), words)
