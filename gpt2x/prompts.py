"""Prompts from the command line, from files, or from standard input."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2x.errors import UserError
from gpt2x.paths import is_utf8, read_utf8, standard_input, utf8

PROMPT_FILES = ("prompt_file", "prompts_file")
"""The settings that name a file with prompts, or standard input."""
STANDARD_INPUT = "-"
"""The value of these settings for standard input."""

_OWN_KEYS = ("prompt", "id")


@dataclass(frozen=True)
class Prompt:
    """A text to continue."""

    id: str
    """Unique in a run. It depends only on the prompt and its place in its file, so it is the same in all runs."""
    text: str
    extra: dict[str, str] = field(default_factory=dict)
    """The other columns of the prompts_file, by name. A value of JSON that is not a string is JSON text."""


def read_prompts(
    prompt: str | list[str] | None,
    prompts_file: str | None = None,
    prompt_file: str | None = None,
    key: str = "prompt",
) -> list[Prompt]:
    """The prompts of a run, at least one, from the first of prompts_file, prompt_file and `prompt` that is set.

    `prompt` is one text or several, and `key` is the setting that errors about it name. prompt_file is a file whose
    whole text, without its trailing newline, is one prompt. prompts_file holds one prompt per line (.txt; blank lines
    are skipped), or records with `prompt` and, optionally, `id` and other columns (.jsonl, .csv; columns without a
    name are left out). `-` is standard input: JSON Lines if the first line begins with `{`, else as .txt.

    An id is the one in the file, or else the place of the prompt in its prompts_file, from 0. The id of any other
    prompt is made from its text.
    Raises UserError if a file cannot be read, if a prompt is empty or not UTF-8, and if two prompts have one id.
    """
    if prompts_file is not None:
        return _from_records(_records(prompts_file), f"prompts_file={prompts_file}")
    if prompt_file is not None:
        where = f"prompt_file={prompt_file}"
        text = _read(prompt_file, "prompt_file")
        return _from_texts([text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text], where)
    return _from_texts([prompt] if isinstance(prompt, str) else prompt or [], key)


def extra_columns(prompts: Iterable[Prompt]) -> list[str]:
    """The names of all other columns of the prompts, each once, in the order of their first appearance."""
    return list(dict.fromkeys(name for prompt in prompts for name in prompt.extra))


def _from_texts(texts: list[str], where: str) -> list[Prompt]:
    """Prompts whose ids are the first 8 hexadecimal digits of the SHA-256 of their texts.

    A text that is repeated has the suffix -1, -2, ...
    """
    _check(texts, where)
    seen: Counter[str] = Counter()
    prompts = []
    for text in texts:
        id = hashlib.sha256(text.encode()).hexdigest()[:8]
        prompts.append(Prompt(f"{id}-{seen[id]}" if seen[id] else id, text))
        seen[id] += 1
    return prompts


def _from_records(records: list[dict[str, Any]], where: str) -> list[Prompt]:
    _check([record.get("prompt") for record in records], where)
    prompts = []
    for i, record in enumerate(records):
        id = str(i) if record.get("id") in (None, "") else str(record["id"])
        extra = {name: _as_text(value) for name, value in record.items() if name and name not in _OWN_KEYS}
        if not is_utf8(id + "".join([*extra, *extra.values()])):
            raise UserError(f"{where}: entry {i + 1} is not UTF-8")
        prompts.append(Prompt(id, record["prompt"], extra))
    (id, count), *_ = Counter(prompt.id for prompt in prompts).most_common(1)
    if count > 1:
        raise UserError(f"{where}: two prompts have the id {id!r}")
    return prompts


def _check(texts: list[Any], where: str) -> None:
    """Raises UserError unless there are prompts, and all of them are texts that are not empty."""
    if not texts:
        raise UserError(f"{where}: no prompt in it")
    for i, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise UserError(f"{where}: entry {i} has no text under `prompt`")
        if not text:
            raise UserError(f"{where}: entry {i} is empty" if len(texts) > 1 else f"{where} is empty")
        if not is_utf8(text):
            raise UserError(f"{where}: entry {i} is not UTF-8")


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read(path: str, setting: str) -> str:
    """The text of a file, or of standard input; UserError if it cannot be read."""
    if path == STANDARD_INPUT:
        return utf8(standard_input(), f"{setting}={path}")
    return read_utf8(Path(path), setting)


def _records(path: str) -> list[dict[str, Any]]:
    """The entries of a prompts_file; UserError if it cannot be read."""
    where = f"prompts_file={path}"
    text = _read(path, "prompts_file")
    kind = Path(path).suffix
    if path == STANDARD_INPUT:
        kind = ".jsonl" if text.lstrip().startswith("{") else ".txt"
    if kind == ".txt":
        return [{"prompt": line} for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if kind == ".jsonl":
        return [_json_object(line, f"{where}, line {n}") for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if kind == ".csv":
        return _csv_records(text, where)
    raise UserError(f"{where}: must end in .txt, .jsonl or .csv, or be {STANDARD_INPUT} for standard input")


def _csv_records(text: str, where: str) -> list[dict[str, Any]]:
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        names = rows.fieldnames or ()
        if "prompt" not in names:
            raise UserError(f"{where}: no column `prompt`; it has {', '.join(names) or 'none'}")
        name, count = Counter(name for name in names if name).most_common(1)[0]
        if count > 1:
            raise UserError(f"{where}: two columns have the name {name!r}")
        records: list[dict[str, Any]] = list(rows)
    except csv.Error as error:
        raise UserError(f"{where}: not a CSV file: {error}") from None
    for i, record in enumerate(records, 1):
        if rows.restkey in record:
            raise UserError(f"{where}: entry {i} has more fields than the header; put quotes around a text with commas")
    return records


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: not an object with `prompt`")
    return value
