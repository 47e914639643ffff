"""A setting that the task does not use is refused, in one line that says which tasks use it."""

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from gpt2x.cli.overrides import PROMPT_SOURCES
from gpt2x.config.schema import Config
from gpt2x.config.settings import refuse_unused
from gpt2x.config.tasks import SCHEMAS, is_used
from gpt2x.config.tasks.validate import Stage
from gpt2x.errors import UserError
from tests.conftest import REPO, Cli, Refused, assert_in, read_csv


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["task=generate", "task.stages=[layers]"], ["task.stages", "task=generate", "task=validate"]),
        (["task=generate", "task.data=x"], ["task.data", "task=generate", "task=train"]),
        (["task.batch_sizes=[1]"], ["task.batch_sizes", "task=validate", "task=benchmark"]),
        (["task=validate", "train.lr=1"], ["train.lr", "task.lr=1", "task=train"]),
        (["task=train", "train.lr=1"], ["train.lr", "task.lr=1"]),
        (["gen_prompt=x"], ["gen_prompt", "task.gen_prompt=x"]),
        (["task=train", "train.nonsense=1"], ["train.nonsense", "no such setting"]),
        (["decode.top_p=0.5"], ["decode.top_p", "task=validate", "task=generate"]),
        (["seed=1"], ["seed", "task=validate", "task=generate and task=train and task=benchmark"]),
        (["prompts_file=x.txt"], ["prompts_file", "task=validate", "task=generate"]),
        (["batch_size=1"], ["batch_size", "task=validate", "task=generate"]),
        (["task=generate", "subject=book"], ["subject", "task=generate", "task=validate"]),
        (["task=generate", "subject.target=x.py:f"], ["subject.target", "task=generate", "task=validate"]),
        (["task=benchmark", "dtype=bfloat16"], ["dtype", "task=benchmark", "task=validate and task=generate"]),
        (["task=benchmark", "decode=greedy"], ["decode", "task=benchmark"]),
        (["task=train", "task.data=x", "prompt=x"], ["prompt", "task=train", "task=validate and task=generate"]),
        (["task=train", "task.data=x", "dtype=float32"], ["dtype", "task=train"]),
        (["task=generate", "subject.target=model.py:GPT2"], ["subject.target", "task=generate", "task=validate"]),
    ],
)
def test_it_is_refused(refused: Refused, args: list[str], words: list[str]) -> None:
    assert_in(refused(*args), *words)


def shared_settings(schema: type = Config, prefix: str = "") -> list[str]:
    """Dotted keys of all settings outside of `task`."""
    hints, keys = get_type_hints(schema), []
    for field in fields(schema):
        if field.name == "task":
            continue
        inner = hints[field.name]
        keys += shared_settings(inner, f"{prefix}{field.name}.") if is_dataclass(inner) else [prefix + field.name]
    return keys


@pytest.mark.parametrize("task", SCHEMAS)
def test_every_unused_setting_is_refused(refused: Refused, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    """One command sets all but those for prompts, which contradict each other; each that arrives is refused alone."""
    arrived: list[str] = []

    def seen(task: str, keys: Iterable[str]) -> None:
        arrived.extend(keys)
        refuse_unused(task, keys)

    monkeypatch.setattr("gpt2x.cli.job.refuse_unused", seen)
    unused = [key for key in shared_settings() if not is_used(task, key)]
    together = [key for key in unused if key not in PROMPT_SOURCES]
    for keys in (together, *([key] for key in unused if key in PROMPT_SOURCES)):
        line = refused(f"task={task}", *(f"{key}={'[]' if key == 'subject.rename' else 1}" for key in keys))
        assert_in(line, f"{keys[0]}: task={task} does not use it")
    assert {key for key in arrived if key != "task"} == set(unused)
    for key in unused:
        with pytest.raises(UserError, match=f"^{re.escape(key)}: task={task} does not use it"):
            refuse_unused(task, ["task", key])


def test_every_shared_setting_is_used_by_a_task() -> None:
    assert [key for key in shared_settings() if not any(is_used(task, key) for task in SCHEMAS)] == []


def test_what_a_preset_sets_is_refused_too(refused: Refused, tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    (presets / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [{override /task: validate}]\ndecode: {top_p: 0.5}\n"
    (presets / "experiment" / "mine.yaml").write_text(text)
    assert_in(refused("--config-dir", str(presets), "experiment=mine"), "decode.top_p", "task=validate does not use it")


def test_what_an_option_of_a_group_sets_is_refused_too(refused: Refused, tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    (presets / "decode").mkdir(parents=True)
    (presets / "decode" / "nucleus.yaml").write_text("defaults: [sample, _self_]\ntop_p: 0.9\n")
    assert_in(refused("--config-dir", str(presets), "decode=nucleus"), "decode.top_p", "task=validate does not use it")


def test_a_job_of_a_sweep_is_refused_alone(gpt2x: Cli, launch: Path) -> None:
    args = ("-m", "task=validate,generate", "seed=1", "decode.max_new_tokens=2", "hydra.sweep.dir=out")
    assert gpt2x(*args).code == 3
    jobs = read_csv(launch / "out" / "jobs.csv")
    assert [job["status"] for job in jobs] == ["failed", "done"]
    assert "task=validate does not use it" in jobs[0]["error"]


def test_the_stages_in_the_yaml_are_those_of_the_schema() -> None:
    content = yaml.safe_load((REPO / "conf" / "task" / "validate.yaml").read_text())
    assert content["stages"] == list(Stage)
