"""--help explains every setting of the chosen task and every option of each group, from the comments in conf/."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from gpt2x.cli.comments import comments_of, headline
from gpt2x.config.tasks import SCHEMAS, is_used
from tests.config.test_unused import shared_settings
from tests.conftest import REPO, Cli

TYPES = {"text", "int", "float", "bool", "int or null", "float or null", "text or null", "list of text", "list of int"}
TYPES |= {"list of list of text", "text or list of text", "auto or int"}


def settings_in(text: str) -> dict[str, tuple[str, str, str]]:
    """Setting -> its type, value and meaning, read from the help's text."""
    part = text.partition("== Settings")[2].partition("\n")[2].partition("A prompt with spaces")[0]
    found = {}
    key = ""
    for line in part.splitlines():
        if re.match(r"[a-z]", line):
            key, kind, value = line[:29].strip(), line[29:50].strip(), line[50:].strip()
            found[key] = (kind, value, "")
        elif line:
            kind, value, meaning = found[key]
            is_value = line.startswith(" " * 50)
            found[key] = (kind, f"{value} {line.strip()}", meaning) if is_value else (kind, value, meaning + line)
    return found


@pytest.mark.parametrize("task", SCHEMAS)
def test_every_setting_has_a_type_a_value_and_a_meaning(gpt2x: Cli, task: str) -> None:
    result = gpt2x(f"task={task}", "--help")
    assert (result.code, result.err) == (0, "")
    assert [line for line in result.out.splitlines() if len(line) > 80] == []
    found = settings_in(result.out)
    of_task = [f"task.{field.name}" for field in fields(SCHEMAS[task]) if field.name != "name"]  # type: ignore[arg-type]
    assert sorted(found) == sorted([*of_task, *(key for key in shared_settings() if is_used(task, key))])
    assert [key for key, (kind, _, _) in found.items() if kind not in TYPES] == []
    assert [key for key, (_, value, _) in found.items() if not value] == []
    assert [key for key, (_, _, meaning) in found.items() if len(meaning.split()) < 2] == []


def test_values_and_meanings_are_those_of_the_yaml(gpt2x: Cli) -> None:
    found = settings_in(gpt2x("task=generate", "--help").out)
    assert found["decode.top_p"][:2] == ("float or null", "null")
    assert "the fewest likeliest tokens" in found["decode.top_p"][2]
    assert found["seed"][:2] == ("int", "0")
    assert found["prompt"][:2] == ("text or list of text", "The quick brown fox jumps over the lazy dog.")
    found = settings_in(gpt2x("task=benchmark", "model=gpt2", "decode=greedy", "--help").out)
    assert found["model.n_embd"][:2] == ("int or null", "768")
    assert "width" in found["model.n_embd"][2]  # the comment stands in auto.yaml only
    assert "pip install" in found["task.engines"][2]
    assert found["task.batch_sizes"][:2] == ("list of int", "[1, 8, 32]")


def test_every_option_of_each_group_has_a_meaning(gpt2x: Cli) -> None:
    text = gpt2x("model=nano", "--help").out.partition("== Groups")[2].partition("== Settings")[0]
    for file in (REPO / "conf").glob("*/*.yaml"):
        assert headline(file), file
        assert re.search(rf"^[* ] {re.escape(file.stem)} +\S", text, re.M), file
    assert re.search(r"^\* nano  ", text, re.M)


def test_dollars_and_control_characters_in_a_value(gpt2x: Cli) -> None:
    result = gpt2x("task=generate", 'prompt="$x ${y} \x1b[31m"', "--help")
    assert result.code == 0
    assert r'"$x ${y} \e[31m"' in result.out


@pytest.mark.parametrize(
    ("text", "comments"),
    [
        ("# top\na: 1  # one\nb: 2\n", {"a": "one", "b": ""}),
        ("a: 1\n# before\n# b\nb: 2  # after\n", {"a": "", "b": "before b after"}),
        ("a: 'x # y'  # one\nb: \"#\"\nc: x#y\n", {"a": "one", "b": "", "c": ""}),
        ("a: 1  # one\n      # and more\nb: 2\n", {"a": "one and more", "b": ""}),
        ("a: 1\n# lost\n\nb: 2\n", {"a": "", "b": ""}),
        ("a: |\n  # text\n  more\nb: 2  # two\n", {"a": "", "b": "two"}),
        ("a:\n  b: 1  # inner\n  c: {d: 1}  # flow\n", {"a": "", "a.b": "inner", "a.c": "flow"}),
        ("a: [1,\n    2]  # list\nb: é  # accent\n", {"a": "list", "b": "accent"}),
        ("", {}),
    ],
)
def test_comments(tmp_path: Path, text: str, comments: dict[str, str]) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    assert comments_of(file) == comments
