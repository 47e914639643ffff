"""Presets: each of gpt2x's own runs, in a small form, and those of the user's are found, listed and never mixed up."""

import json
import shutil
from pathlib import Path

import pytest

from gpt2x.prompts import read_prompts
from tests.conftest import REPO, Cli, assert_in, read_csv

STUDY = ("decode.max_new_tokens=2", "hydra.sweep.dir=out")
SMALL = {
    "sizes": ("task.stages=[config]", "model=nano", "hydra.sweep.dir=out"),
    "dtypes": ("task.stages=[config]", "dtype=float32", "hydra.sweep.dir=out"),
    "nucleus": (*STUDY, "decode.top_p=0.5,1.0", "decode.temperature=0.7", "seed=1"),
    "repetition": (*STUDY, "decode.repetition_penalty=1.3", "decode.no_repeat_ngram_size=null,3"),
}
MINE = "# @package _global_\n# how does Juliet go on?\ndefaults: [{override /task: generate}]\nprompt: Juliet\n"
PROMPTS = read_prompts(None, str(REPO / "conf" / "experiment" / "prompts.csv"))


@pytest.mark.parametrize("name", sorted(file.stem for file in (REPO / "conf" / "experiment").glob("*.yaml")))
def test_each_preset_runs(gpt2x: Cli, launch: Path, name: str) -> None:
    result = gpt2x(f"experiment={name}", *SMALL[name])
    assert (result.code, result.err) == (0, "")
    jobs = read_csv(launch / "out" / "jobs.csv")
    assert {job["status"] for job in jobs} == {"done"}
    if name in ("sizes", "dtypes"):
        assert [row["verdict"] for row in read_csv(launch / "out" / "summary.csv")] == ["pass"] * len(jobs)
        return
    rows = read_csv(launch / "out" / "generations.csv")
    n_settings = {"nucleus": 2, "repetition": 4}[name]
    assert [row["prompt_id"] for row in rows] == [prompt.id for prompt in PROMPTS] * n_settings
    assert {row["model"] for row in rows} == {"nano"}
    assert {(row["prompt_id"], row["form"]) for row in rows} == {(each.id, each.extra["form"]) for each in PROMPTS}
    assert all(row["completion"] for row in rows)


def test_the_studies_have_the_axes_that_they_are_about(gpt2x: Cli) -> None:
    for name, axes in (
        ("nucleus", {"decode.top_p": 5, "decode.temperature": 3, "seed": 3}),
        ("repetition", {"decode": 2, "decode.repetition_penalty": 3, "decode.no_repeat_ngram_size": 2}),
    ):
        text = gpt2x(f"experiment={name}", "--cfg", "hydra", "--package", "hydra.sweeper.params").out
        found = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        assert {key: len(value.split(",")) for key, value in found.items()} == axes


@pytest.fixture
def own(launch: Path) -> Path:
    """The folder conf/experiment where the command starts."""
    folder = launch / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(MINE)
    return folder


def test_presets_in_conf_are_found_without_a_flag(gpt2x: Cli, launch: Path, own: Path) -> None:
    assert gpt2x("experiment=mine", "decode.max_new_tokens=2", "hydra.run.dir=out").code == 0
    assert read_csv(launch / "out" / "generations.csv")[0]["prompt"] == "Juliet"
    assert "did you mean 'mine'" in gpt2x("experiment=min").error()


def test_options_beside_the_presets_are_found_too(gpt2x: Cli, launch: Path, own: Path) -> None:
    (own.parent / "decode").mkdir()
    (own.parent / "decode" / "sharp.yaml").write_text("# sharper\ndefaults: [sample, _self_]\ntemperature: 0.5\n")
    assert "temperature: 0.5" in gpt2x("task=generate", "decode=sharp", "--cfg", "job").out


@pytest.mark.parametrize("flag", [False, True])
def test_help_lists_them(gpt2x: Cli, launch: Path, own: Path, flag: bool) -> None:
    (own / "latin.yaml").write_bytes(b"# caf\xe9\na: 1\n")
    if flag:
        (launch / "conf").rename(launch / "elsewhere")
    result = gpt2x(*(["--config-dir", "elsewhere"] if flag else []), "--help")
    assert (result.code, result.err) == (0, "")
    groups = result.out.partition("== Groups")[2].partition("== Settings")[0]
    assert "  mine          how does Juliet go on?\n" in groups
    assert "  latin         caf" in groups
    assert "  nucleus       how top_p" in groups
    if not flag:
        assert "  mine " not in gpt2x("--config-dir", str(REPO / "tests"), "--help").out


def test_another_folder_is_used_in_place_of_conf(gpt2x: Cli, launch: Path, own: Path) -> None:
    shutil.copytree(launch / "conf", launch / "other")
    (launch / "other" / "experiment" / "mine.yaml").rename(launch / "other" / "experiment" / "theirs.yaml")
    line = gpt2x("--config-dir=other", "experiment=mine").error()
    assert_in(line, "theirs")


def test_conf_of_another_project_replaces_nothing(gpt2x: Cli, launch: Path, own: Path) -> None:
    """It may have any config.yaml, and options with the names of gpt2x's, which are not chosen by name."""
    plain = gpt2x("task=generate", "--cfg", "job", "--config-dir", str(REPO / "conf")).out
    (own.parent / "config.yaml").write_text("seed: 77\nfoo: ${bar}\n")
    for group in ("task", "model", "decode"):
        (own.parent / group).mkdir()
    (own.parent / "task" / "validate.yaml").write_text("broken: [\n")
    (own.parent / "model" / "auto.yaml").write_text("layers: 3\n")
    (own.parent / "decode" / "sample.yaml").write_text("temperature: 9\n")
    result = gpt2x("task=generate", "--cfg", "job")
    assert (result.code, result.err, result.out) == (0, "", plain)


def test_without_presets_conf_is_not_gpt2xs_business(gpt2x: Cli, launch: Path) -> None:
    (launch / "conf" / "decode").mkdir(parents=True)
    (launch / "conf" / "decode" / "sharp.yaml").write_text("temperature: 0.5\n")
    assert_in(gpt2x("task=generate", "decode=sharp").error(), "decode=sharp", "not one of greedy, sample")
    shutil.rmtree(launch / "conf")
    (launch / "conf").write_text("a file\n")
    assert gpt2x("--cfg", "job").code == 0


@pytest.mark.parametrize("flags", [[], ["--config-dir", "conf"]])
def test_an_option_with_the_name_of_ours_is_refused_when_it_is_chosen(
    gpt2x: Cli, launch: Path, own: Path, flags: list[str]
) -> None:
    (own / "nucleus.yaml").write_text(MINE)
    line = gpt2x(*flags, "experiment=nucleus").error()
    assert_in(line, "experiment=nucleus", "rename conf/experiment/nucleus.yaml")
    assert gpt2x(*flags, "experiment=dtypes", "--cfg", "job").code == 0
    assert gpt2x(*flags, "task=generate", f"prompt={'x' * 300}", "--cfg", "job").code == 0  # too long for a file's name
    shutil.copy(REPO / "conf" / "experiment" / "nucleus.yaml", own)  # in a copy of gpt2x, for example
    assert gpt2x(*flags, "experiment=nucleus", "--cfg", "job").code == 0


def test_completion_knows_them(gpt2x: Cli, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "gpt2x experiment=m")
    monkeypatch.setenv("COMP_POINT", "18")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert gpt2x("-sc", "query=bash").out.split() == ["experiment=mine"]


def test_a_job_says_where_the_prompts_of_a_preset_lie(gpt2x: Cli, launch: Path) -> None:
    args = ("decode.top_p=0.5", "decode.temperature=1.0", "seed=0")
    assert gpt2x("experiment=nucleus", *STUDY, *args).code == 0
    (job,) = (launch / "out").glob("*/manifest.json")
    assert Path(json.loads(job.read_text())["config"]["prompts_file"]) == REPO / "conf" / "experiment" / "prompts.csv"
