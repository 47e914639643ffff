"""sweep_prompts=FILE and prompt_id: each prompt of a file is a job, which no other prompt and no quoting changes."""

import json
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from gpt2x.cli.composition import task_overrides
from gpt2x.cli.prompt_axis import axis_of
from tests.conftest import Cli, Refused, assert_in, read_csv
from tests.tasks.test_prompts import text_id

SHORT = ("task=generate", "decode.max_new_tokens=2")
NASTY = [
    'It\'s "quoted", a=b',
    "a\n\tb\\",
    "${seed} \\${x} ???",
    "choice(1,2)",
    "[1,2]",
    "~x",
    " ",
    "007",
    "null",
    "é😀",
]
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def write(file: Path, records: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def sweep(gpt2x: Cli, launch: Path, *args: str, folder: str = "out") -> dict[str, str]:
    """Runs a sweep over p.jsonl; returns prompt_id -> job for all jobs in its folder."""
    assert gpt2x(*SHORT, "sweep_prompts=p.jsonl", *args, f"hydra.sweep.dir={folder}").code == 0
    return {row["prompt_id"]: row["job"] for row in read_csv(launch / folder / "generations.csv")}


def test_one_job_per_prompt_and_combination(gpt2x: Cli, launch: Path) -> None:
    (launch / "p.csv").write_text("id,prompt,topic\nx,one,sea\ny,two,sky\n")
    result = gpt2x(*SHORT, "sweep_prompts=p.csv", "seed=1,2", "hydra.sweep.dir=out")
    assert (result.code, result.err) == (0, "")
    rows = read_csv(launch / "out" / "generations.csv")
    assert list(rows[0])[:2] == ["job", "prompt_id"]
    assert sorted((row["prompt_id"], row["prompt"], row["topic"], row["seed"]) for row in rows) == [
        ("x", "one", "sea", "1"),
        ("x", "one", "sea", "2"),
        ("y", "two", "sky", "1"),
        ("y", "two", "sky", "2"),
    ]
    assert len({row["job"] for row in rows}) == 4
    (invocation,) = json.loads((launch / "out" / "sweep.json").read_text())["invocations"]
    assert invocation["overrides"] == [*SHORT, "seed=1,2", "sweep_prompts=p.csv"]


def test_texts_and_ids_arrive_unchanged(gpt2x: Cli, launch: Path) -> None:
    write(launch / "p.jsonl", [{"prompt": text, "id": f"{text}{i}"} for i, text in enumerate(NASTY)])
    sweep(gpt2x, launch, "decode.max_new_tokens=1")
    rows = read_csv(launch / "out" / "generations.csv")
    assert [(row["prompt_id"], row["prompt"]) for row in rows] == [(f"{t}{i}", t) for i, t in enumerate(NASTY)]
    job = json.loads((launch / "out" / rows[0]["job"] / "job.json").read_text())
    alone = gpt2x(*job["overrides"], "decode.max_new_tokens=1", "hydra.run.dir=alone")  # as jobs.csv shows them
    assert alone.code == 0
    assert read_csv(launch / "alone" / "generations.csv")[0]["prompt"] == NASTY[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5, unique=True))
@example(NASTY)
@example(["\\${a}", "\\\\${b}\\", '\\"', '"', "\\"])
def test_ids_of_any_characters_are_what_hydra_sweeps(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    file = tmp_path_factory.mktemp("any") / "a, b = ${c}.jsonl"
    write(file, [{"prompt": "x", "id": id} for id in ids])
    parser = OverridesParser.create()
    in_file, of_ids = axis_of(f'sweep_prompts="{file}"')
    assert _composed(in_file, "prompts_file") == str(file)
    override = parser.parse_override(of_ids)
    jobs = list(override.sweep_string_iterator()) if len(ids) > 1 else [override.get_value_element_as_str()]
    assert [_composed(f"prompt_id={job}", "prompt_id") for job in jobs] == ids
    recorded = task_overrides(OmegaConf.create({"overrides": {"task": [f"prompt_id={jobs[0]}"]}}))
    assert parser.parse_override(recorded[0]).value() == ids[0]  # as it is typed


def _composed(override: str, key: str) -> Any:
    """The value that Hydra composes for an override: parsed, and then interpolated by OmegaConf."""
    config = OmegaConf.create({key: OverridesParser.create().parse_override(override).value()})
    return OmegaConf.to_container(config, resolve=True)[key]  # type: ignore[index, call-overload]


def test_other_rows_do_not_change_a_job(gpt2x: Cli, launch: Path) -> None:
    """So a sweep that is started again runs only new prompts: adding and reordering rows keeps the names of jobs."""
    rows: list[dict[str, Any]] = [{"prompt": "one"}, {"prompt": "two", "id": "b"}, {"prompt": "three", "topic": "sea"}]
    write(launch / "p.jsonl", rows)
    first = sweep(gpt2x, launch)
    assert list(first) == [text_id("one"), "b", text_id("three")]
    write(launch / "p.jsonl", [{"prompt": "zero", "x": 1}, *reversed(rows), {"prompt": "one"}])
    second = sweep(gpt2x, launch, folder="again")
    assert list(second) == [text_id("zero"), *reversed(first), f"{text_id('one')}-1"]
    assert {id: second[id] for id in first} == first
    write(launch / "p.jsonl", [{"prompt": "one", "topic": "sky"}, {"prompt": "Two", "id": "b"}])
    third = sweep(gpt2x, launch, folder="changed")
    assert list(third) == list(first)[:2]
    assert set(third.values()).isdisjoint(first.values())


def test_the_path_of_the_file_does_not_change_a_job(gpt2x: Cli, launch: Path) -> None:
    write(launch / "p.jsonl", [{"prompt": "one"}])
    (job,) = sweep(gpt2x, launch).values()
    (launch / "other.txt").write_text("\n two\none\n")
    assert (
        gpt2x("-m", *SHORT, "prompts_file=other.txt", f"prompt_id={text_id('one')}", "hydra.sweep.dir=other").code == 0
    )
    assert [row["job"] for row in read_csv(launch / "other" / "generations.csv")] == [job]


def test_a_file_is_read_once_for_all_jobs(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x import prompts

    reads, read = [], prompts._read
    monkeypatch.setattr(prompts, "_read", lambda *args: (reads.append(args), read(*args))[1])
    (launch / "p.jsonl").write_text("".join(f'{{"prompt": "{i}"}}\n' for i in range(5)))
    assert len(sweep(gpt2x, launch)) == 5
    assert len(reads) == 1


def test_one_prompt_of_a_file(gpt2x: Cli, launch: Path) -> None:
    (launch / "p.csv").write_text("id,prompt\n007,one\n7,two\n1.50,three\n")
    for id, prompt in (("007", "one"), ("7", "two"), ("1.50", "three")):
        assert gpt2x(*SHORT, "prompts_file=p.csv", f"prompt_id={id}", f"hydra.run.dir=run-{id}").code == 0
        (row,) = read_csv(launch / f"run-{id}" / "generations.csv")
        assert (row["prompt_id"], row["prompt"]) == (id, prompt)
    assert gpt2x("-m", *SHORT, "prompts_file=p.csv", "prompt_id=007,1.50", "hydra.sweep.dir=two").code == 0
    assert [row["prompt_id"] for row in read_csv(launch / "two" / "generations.csv")] == ["007", "1.50"]


def test_evaluate_has_the_axis_too(gpt2x: Cli, launch: Path) -> None:
    (launch / "p.csv").write_text("id,prompt\nx,To be or not to be\ny,Once more\n")
    assert gpt2x("task=evaluate", "sweep_prompts=p.csv", "hydra.sweep.dir=out").code == 0
    rows = read_csv(launch / "out" / "evaluation.csv")
    assert [(row["prompt_id"], row["text_id"]) for row in rows] == [("x", "x"), ("y", "y")]


def test_a_task_without_prompts_files(gpt2x: Cli, launch: Path) -> None:
    (launch / "p.txt").write_text("one\n")
    result = gpt2x("task=validate", "sweep_prompts=p.txt")
    assert result.code == 3
    assert_in(result.err, "prompts_file: task=validate does not use it")


def test_what_only_prints_runs_nothing(gpt2x: Cli, launch: Path) -> None:
    (launch / "p.txt").write_text("one\n")
    for flags in (["--cfg", "job"], ["--help"], ["--info", "config"]):
        assert gpt2x("task=generate", "sweep_prompts=p.txt", *flags).code == 0
    assert [each.name for each in launch.iterdir()] == ["p.txt"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["sweep_prompts=none.txt"], ["sweep_prompts=none.txt", "no such file"]),
        (["sweep_prompts=-"], ["sweep_prompts=-", "standard input"]),
        (["sweep_prompts="], ["sweep_prompts=", "name one file"]),
        (["sweep_prompts=a.txt,b.txt"], ["sweep_prompts=a.txt,b.txt", "name one file"]),
        (["sweep_prompts={DIR}/empty.txt"], ["empty.txt", "no prompt in it"]),
        (["sweep_prompts={DIR}/twice.csv"], ["twice.csv", "two prompts have the id 'x'"]),
        (["sweep_prompts={DIR}/p.md"], ["p.md", ".jsonl or .csv"]),
        (["sweep_prompts={DIR}/p.txt", "prompt=a"], ["prompt and sweep_prompts contradict"]),
        (["sweep_prompts={DIR}/p.txt", "prompts_file=a"], ["prompts_file and sweep_prompts contradict"]),
        (["sweep_prompts={DIR}/p.txt", "prompt_id=a"], ["prompt_id and sweep_prompts contradict"]),
        (["sweep_prompts={DIR}/p.txt", "hydra.run.dir=a"], ["hydra.run.dir", "hydra.sweep.dir=DIR"]),
        (["prompts_file={DIR}/p.txt", "prompt_id=b"], ["no prompt has the id 'b'", f"there are '{text_id('a')}'"]),
        (["prompts_file={DIR}/p.txt", "prompt_id=[a]"], ["prompt_id", "give one text"]),
        (["prompt_id=a"], ["prompt_id=a", "add prompts_file=FILE"]),
    ],
)
def test_what_is_no_axis(refused: Refused, tmp_path: Path, args: list[str], words: list[str]) -> None:
    for name, text in (("empty.txt", "\n"), ("twice.csv", "id,prompt\nx,a\nx,b\n"), ("p.txt", "a\n"), ("p.md", "a\n")):
        (tmp_path / name).write_text(text)
    assert_in(refused(*SHORT, *(arg.replace("{DIR}", str(tmp_path)) for arg in args)), *words)


@pytest.mark.parametrize("setting", ["hydra.sweeper=1", "hydra.sweeper.params=1", "hydra.sweeper.params=null"])
def test_parameters_of_the_sweeper_that_are_none(gpt2x: Cli, launch: Path, setting: str) -> None:
    result = gpt2x("-m", *SHORT, setting)
    assert "Traceback" not in result.err
    assert result.code == (0 if setting.endswith("null") else 2)


def preset(launch: Path, text: str) -> None:
    (launch / "conf" / "experiment").mkdir(parents=True)
    head = "# @package _global_\ndefaults: [{override /task: generate}]\ndecode: {max_new_tokens: 1}\n"
    (launch / "conf" / "experiment" / "mine.yaml").write_text(head + text)


def test_a_preset_may_have_the_axis(gpt2x: Cli, launch: Path) -> None:
    preset(launch, "hydra: {mode: MULTIRUN, sweeper: {params: {sweep_prompts: p.txt, seed: '1,2'}}}\n")
    (launch / "p.txt").write_text("one\ntwo\n")
    (launch / "q.txt").write_text("three\n")
    for name, args, prompts in (
        ("preset", [], ["one", "two"] * 2),
        ("file", ["sweep_prompts=q.txt"], ["three"] * 2),
        ("text", ["prompt=four"], ["four"] * 2),
        ("texts", ["prompts_file=p.txt", "seed=1"], ["one", "two"]),
        ("none", ["sweep_prompts=null", "prompt=five"], ["five"] * 2),
    ):
        assert gpt2x("experiment=mine", *args, f"hydra.sweep.dir={name}").code == 0
        assert [row["prompt"] for row in read_csv(launch / name / "generations.csv")] == prompts, name
    assert_in(gpt2x("experiment=mine", "prompt_id=one").error(), "prompt_id", "sweep_prompts=p.txt")
    assert_in(gpt2x("experiment=mine", "task=collect", "sweep=x").error(), "task=collect")
    assert not (launch / "runs").exists()


def test_a_prompt_does_not_silently_lose_against_the_file_of_a_preset(gpt2x: Cli, launch: Path) -> None:
    preset(launch, "prompts_file: p.txt\n")
    (launch / "p.txt").write_text("one\n")
    assert_in(gpt2x("experiment=mine", "prompt=two").error(), "prompt", "add prompts_file=null")
    assert gpt2x("experiment=mine", "prompt=two", "prompts_file=null", "hydra.run.dir=out").code == 0
    assert read_csv(launch / "out" / "generations.csv")[0]["prompt"] == "two"
