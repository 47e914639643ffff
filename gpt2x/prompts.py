"""Prompts from the command line or from a file."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2x.errors import UserError
from gpt2x.paths import is_utf8, read_utf8


@dataclass(frozen=True)
class Prompt:
    """A text to continue, and its id, which is unique in a run."""

    id: str
    text: str


def read_prompts(prompt: str | list[str] | None, prompts_file: str | None, key: str = "prompt") -> list[Prompt]:
    """The prompts of a run, at least one. Ids are those of the file, or count from 0.

    A prompts_file is read in place of `prompt`: .txt has one prompt per line (blank lines are skipped), .jsonl and
    .csv have `prompt` and, optionally, `id`. `key` is the setting that errors about `prompt` name.
    Raises UserError if the file cannot be read, if a prompt is empty or not UTF-8, and if two prompts have one id.
    """
    if prompts_file is None:
        texts = [prompt] if isinstance(prompt, str) else prompt or []
        where, records = key, [{"prompt": text} for text in texts]
    else:
        where, records = f"prompts_file={prompts_file}", _read(Path(prompts_file))
    prompts = []
    for i, record in enumerate(records):
        text = record.get("prompt")
        if not isinstance(text, str):
            raise UserError(f"{where}: entry {i + 1} has no text under `prompt`")
        if not text:
            raise UserError(f"{where}: entry {i + 1} is empty" if len(records) > 1 else f"{where} is empty")
        given = record.get("id")
        id = str(i) if given in (None, "") else str(given)
        if not is_utf8(id + text):
            raise UserError(f"{where}: entry {i + 1} is not UTF-8")
        prompts.append(Prompt(id, text))
    if not prompts:
        raise UserError(f"{where}: no prompt in it")
    ids = [entry.id for entry in prompts]
    doubled = next((id for id in ids if ids.count(id) > 1), None) if len(set(ids)) < len(ids) else None
    if doubled is not None:
        raise UserError(f"{where}: two prompts have the id {doubled!r}")
    return prompts


def _read(path: Path) -> list[dict[str, Any]]:
    """The entries of a file of prompts; UserError if it cannot be read."""
    where = f"prompts_file={path}"
    text = read_utf8(path, "prompts_file")
    if path.suffix == ".txt":
        return [{"prompt": line} for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if path.suffix == ".jsonl":
        return [_json_object(line, f"{where}, line {n}") for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if path.suffix == ".csv":
        try:
            rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            if "prompt" not in (rows.fieldnames or ()):
                raise UserError(f"{where}: no column `prompt`; it has {', '.join(rows.fieldnames or ['none'])}")
            return list(rows)
        except csv.Error as error:
            raise UserError(f"{where}: not a CSV file: {error}") from None
    raise UserError(f"{where}: must end in .txt, .jsonl or .csv")


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: not an object with `prompt`")
    return value
