"""What messages advise to type does what was meant: flags of other scripts, quoting, paths given to a group."""

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gpt2x.cli.quoting import as_given, without_interpolations
from gpt2x.config.schema import Config
from gpt2x.errors import UserError
from gpt2x.tasks.registry import Task
from tests.conftest import REPO, Cli, Refused, assert_in


@pytest.fixture
def typed(gpt2x: Cli, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Config that a task gets from a command, which bash reads."""

    def run(command: str) -> Config:
        seen: list[Config] = []

        def task(config: Config, settings: Any, folder: Any) -> None:
            seen.append(config)
            raise UserError("enough")

        monkeypatch.setattr(Task, "load", lambda _: task)
        words = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
        program, *args = words.decode(errors="surrogateescape").split("\0")[:-1]
        assert program == "gpt2x"
        assert "enough" in gpt2x(*args).error()
        return seen[0]

    return run


@pytest.mark.parametrize(
    ("args", "command"),
    [
        (
            ["--model", "gpt2", "--prompt", "Hello", "--max_new_tokens", "20", "--top-k", "5"],
            """gpt2x task=generate model=gpt2 weights=auto 'prompt="Hello"' decode.max_new_tokens=20 decode.top_k=5""",
        ),
        (["--prompt=Hello"], """gpt2x task=generate 'prompt="Hello"'"""),
        (["--prompt", "It's -- me"], """gpt2x task=generate 'prompt="It'"'"'s -- me"'"""),
        (["--temperature", "0.8", "--length=5"], "gpt2x task=generate decode.temperature=0.8 decode.max_new_tokens=5"),
        (["--num_samples", "3", "--greedy"], "gpt2x task=generate decode.num_samples=3 decode=greedy"),
        (["--seed", "4"], "gpt2x task=generate seed=4"),
        (["-m", "--seed", "1,2", "--out_dir", "x"], "gpt2x task=generate -m seed=1,2 hydra.sweep.dir=x"),
        (["--device", "cpu"], "gpt2x device=cpu"),
        (["--checkpoint", "data/x.pt"], "gpt2x weights.path=data/x.pt"),
        (["--ckpt=a b.pt", "seed=1", "-m"], "gpt2x seed=1 -m 'weights.path=\"a b.pt\"'"),
        (["--model", "openai-community/gpt2"], "gpt2x model=gpt2 weights=auto"),
        (["--model_name", "124M"], "gpt2x model=gpt2 weights=auto"),
        (["--model", "./my.pt"], "gpt2x weights.path=./my.pt"),
        (
            ["--steps", "5", "--lr", "1e-3", "--data", "x.txt"],
            "gpt2x task=train task.steps=5 task.lr=1e-3 task.data=x.txt",
        ),
        (["generate"], "gpt2x task=generate"),
        (["validate", "model=nano"], "gpt2x model=nano task=validate"),
        (["generate", "--prompt", "a\nb"], """gpt2x task=generate $'prompt="a\\nb"'"""),
        (["--model", "gpt2", "weights=random"], "gpt2x weights=random model=gpt2"),
        (["-m", "--seed", "1,2"], "gpt2x task=generate -m seed=1,2"),
        (
            ["task=generate", "--top-k", "4", "prompt=a b, c"],
            """gpt2x task=generate 'prompt="a b, c"' decode.top_k=4""",
        ),
        (["--frob", "3", "--top-k", "5"], "gpt2x task=generate decode.top_k=5"),
        (["--decode.top_p", "0.5"], "gpt2x task=generate decode.top_p=0.5"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_of_other_scripts(refused: Refused, args: list[str], command: str) -> None:
    assert refused(*args).endswith(f"; use settings: {command}")


def table() -> Iterator[tuple[str, str]]:
    """Each flag in the table of conf/README.md, and the setting beside it."""
    lines = (REPO / "conf" / "README.md").read_text().partition("## From other scripts")[2].splitlines()
    for line in lines:
        if not line.startswith("| `--"):
            continue
        _, elsewhere, here, _ = line.split("|")
        entries, settings = elsewhere.split(", "), re.findall("`(.*?)`", here)
        for number, entry in enumerate(entries):
            for flag in re.findall("`(.*?)`", entry):
                yield flag, settings[number if len(settings) == len(entries) else 0]


@pytest.mark.parametrize(("flag", "setting"), [case for case in table() if case[0].startswith("--")])
def test_the_table_of_flags(refused: Refused, flag: str, setting: str) -> None:
    words = flag.split() if " " in flag or "=" in flag or "=" in setting else [flag, "1"]
    line = refused(*words)
    assert_in(line, "; use settings: gpt2x", setting if "=" in setting else f"{setting}=1")


def test_a_flag_without_its_value(refused: Refused) -> None:
    assert_in(refused("--prompt"), "--prompt needs a value")


def test_the_new_form_of_old_flags_runs(refused: Refused, typed: Any) -> None:
    args = ["--model", "nano", "--prompt", 'say "hi", it\'s', "--top-k", "5", "--seed", "3", "--length", "7"]
    config = typed(refused(*args).partition("use settings: ")[2])
    assert (config.model.name, config.prompt, config.seed) == ("nano", 'say "hi", it\'s', 3)
    assert (config.decode.top_k, config.decode.max_new_tokens) == (5, 7)


def test_a_flag_that_no_setting_corresponds_to(refused: Refused) -> None:
    assert_in(refused("--prompt", "x", "--frobnicate", "3"), "no setting corresponds to --frobnicate;")


@given(text=st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=12))
@example(text="It's")
@example(text='"')
@example(text='say "hi", it\'s a=b: {x} [y] (z) \\')
@example(text="a\n\n  b\t\\n  ")
@example(text="${seed} \\${x} $$ ${")
@example(text="?, ???")
@example(text="\\\\\\\\\n")
@example(text="\\\\\"',")
@example(text="\x1b[31m\x07\u202e\xa0")
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_advice_on_quoting_gives_the_text(gpt2x: Cli, typed: Any, text: str) -> None:
    value = f"it's, {text}"  # no text with an apostrophe can be given without quotes
    line = gpt2x("task=generate", f"prompt={value}").error()
    assert "prompt_file=FILE" in line
    word = line.partition("for this text, type ")[2].rpartition(", or put the text into a file")[0]
    assert typed(f"gpt2x task=generate {word}").prompt == value


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("prompt=Hello, world", """'prompt="Hello, world"'"""),
        ("prompt='It's'", """'prompt="It'"'"'s"'"""),
        ("prompt={a: b}", """'prompt="{a: b}"'"""),
        ("prompt=print(x)", """'prompt="print(x)"'"""),
        ("prompt=a=b", """'prompt="a=b"'"""),
        ("decode.stop=a,b", """'decode.stop="a,b"'"""),
        ("notes=it's", """'notes="it'"'"'s"'"""),
    ],
)
def test_advice_on_quoting(refused: Refused, override: str, advice: str) -> None:
    assert_in(refused("task=generate", override), f"for this text, type {advice}")


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("weights=data/x.pt", "weights.path=data/x.pt"),
        ("weights=x.safetensors", "weights.path=x.safetensors"),
        ("model=/tmp/gpt2", "weights.path=/tmp/gpt2"),
        ("model=./gpt2", "weights.path=./gpt2"),
    ],
)
def test_a_path_given_to_a_group(refused: Refused, override: str, path: str) -> None:
    assert refused(override).endswith(f"write {path}")


@given(text=st.text(st.sampled_from("\\${}a"), max_size=10))
def test_overrides_are_recorded_as_they_were_given(text: str) -> None:
    assert as_given(without_interpolations(text)) == text
