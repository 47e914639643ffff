"""Prompts from the command line, from files, or from standard input."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gpt2x.errors import UserError
from gpt2x.paths import expanded, is_utf8, read_utf8, standard_input, utf8

PROMPT_FILES = ("prompt_file", "prompts_file")
"""The settings that name a file with prompts, or standard input."""
STANDARD_INPUT = "-"
"""The value of these settings for standard input."""

_OWN_KEYS = ("prompt", "id")
_SHOWN = 5  # ids in a message
_NO_EXTRA: Mapping[str, str] = MappingProxyType({})  # one for all prompts, of which there may be millions


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to continue."""

    id: str
    """Unique in a run. It depends only on the prompt and its place in its file, so it is the same in all runs."""
    text: str
    extra: Mapping[str, str] = field(default_factory=lambda: _NO_EXTRA)
    """The other columns of the prompts_file, by name. A value of JSON that is not a string is JSON text."""


def read_prompts(
    prompt: str | list[str] | None,
    prompts_file: str | None = None,
    prompt_file: str | None = None,
    key: str = "prompt",
    prompt_id: str | None = None,
) -> list[Prompt]:
    """The prompts of a run, at least one, from the first of prompts_file, prompt_file and `prompt` that is set.

    `prompt` is one text or several, and `key` is the setting that errors about it name. prompt_file is a file whose
    whole text, without its trailing newline, is one prompt. prompts_file holds one prompt per line (.txt; blank lines
    are skipped), or records with `prompt` and, optionally, `id` and other columns (.jsonl, .csv; columns without a
    name are left out). `-` is standard input: JSON Lines if the first line begins with `{`, else as .txt.

    An id is the one in the file, or else the place of the prompt in its prompts_file, from 0. The id of any other
    prompt is made from its text. With prompt_id, it is one prompt of the prompts_file, found by `prompts_by_id`.
    Raises UserError if a file cannot be read, if a prompt is empty or not UTF-8, and if two prompts have one id.
    """
    if prompts_file is not None and prompt_id is not None:
        return [_with_id(prompts_by_id(prompts_file), prompt_id, prompts_file)]
    if prompts_file is not None:
        return _from_records(prompts_file, lambda place, text: str(place))
    if prompt_file is not None:
        where = f"prompt_file={prompt_file}"
        text = _read(prompt_file, "prompt_file")
        return _from_texts([text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text], where)
    return _from_texts([prompt] if isinstance(prompt, str) else prompt or [], key)


def extra_columns(prompts: Iterable[Prompt]) -> list[str]:
    """The names of all other columns of the prompts, each once, in the order of their first appearance."""
    return list(dict.fromkeys(name for prompt in prompts for name in prompt.extra))


def prompts_by_id(prompts_file: str) -> Mapping[str, Prompt]:
    """The prompts of a prompts_file by id, in their order, for those who read one of them.

    A prompt without an id in the file has the id of its text here, so that no id depends on the other prompts. The
    file is read once per process, until its size or time changes. Raises UserError as `read_prompts` does.
    """
    try:
        stat = expanded(prompts_file, "prompts_file").stat()
    except OSError:  # standard input, or a file that cannot be read
        return _by_id(prompts_file)
    return _by_id_of_file(str(Path.cwd()), prompts_file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _by_id_of_file(folder: str, path: str, size: int, time: int) -> Mapping[str, Prompt]:
    """All arguments but `path` are part of the cache's key only."""
    return _by_id(path)


def _by_id(path: str) -> Mapping[str, Prompt]:
    id_of = _text_ids()
    return {prompt.id: prompt for prompt in _from_records(path, lambda place, text: id_of(text))}


def _with_id(prompts: Mapping[str, Prompt], id: str, path: str) -> Prompt:
    if id in prompts:
        return prompts[id]
    some = ", ".join(map(repr, list(prompts)[:_SHOWN])) + (", ..." if len(prompts) > _SHOWN else "")
    raise UserError(f"prompts_file={path}: no prompt has the id {id!r}; there are {some}")


def _text_ids() -> Callable[[str], str]:
    """A function from a text to its id: the first 8 hexadecimal digits of the SHA-256.

    A text for which the function was called before has the suffix -1, -2, ...
    """
    seen: Counter[str] = Counter()

    def id_of(text: str) -> str:
        id = hashlib.sha256(text.encode()).hexdigest()[:8]
        seen[id] += 1
        return id if seen[id] == 1 else f"{id}-{seen[id] - 1}"

    return id_of


def _from_texts(texts: list[str], where: str) -> list[Prompt]:
    if not texts:
        raise UserError(f"{where}: no prompt in it")
    for i, text in enumerate(texts, 1):
        _checked(text, f"{where}: entry {i}" if len(texts) > 1 else where)
    id_of = _text_ids()
    return [Prompt(id_of(text), text) for text in texts]


def _from_records(path: str, id_of: Callable[[int, str], str]) -> list[Prompt]:
    """The prompts of a prompts_file; `id_of` makes the id of one that has none from its place and its text."""
    prompts = []
    ids: set[str] = set()
    for place, record in enumerate(_records(path)):
        where = f"prompts_file={path}: entry {place + 1}"
        text = _checked(record.get("prompt"), where)
        id = id_of(place, text) if record.get("id") in (None, "") else str(record["id"])
        extra = {name: _as_text(value) for name, value in record.items() if name and name not in _OWN_KEYS}
        if not is_utf8(id + "".join([*extra, *extra.values()])):
            raise UserError(f"{where} is not UTF-8")
        if id in ids:
            raise UserError(f"prompts_file={path}: two prompts have the id {id!r}")
        ids.add(id)
        prompts.append(Prompt(id, text, extra or _NO_EXTRA))
    if not prompts:
        raise UserError(f"prompts_file={path}: no prompt in it")
    return prompts


def _checked(text: Any, where: str) -> str:
    """The text of a prompt. Raises UserError if it is no text, empty, or not UTF-8."""
    if not isinstance(text, str):
        raise UserError(f"{where} has no text under `prompt`")
    if not text:
        raise UserError(f"{where} is empty")
    if not is_utf8(text):
        raise UserError(f"{where} is not UTF-8")
    return text


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read(path: str, setting: str) -> str:
    """The text of a file, or of standard input; UserError if it cannot be read."""
    if path == STANDARD_INPUT:
        return utf8(standard_input(), f"{setting}={path}")
    return read_utf8(Path(path), setting)


def _records(path: str) -> Iterable[dict[str, Any]]:
    """The entries of a prompts_file; UserError if it cannot be read."""
    where = f"prompts_file={path}"
    text = _read(path, "prompts_file")
    kind = Path(path).suffix
    if path == STANDARD_INPUT:
        kind = ".jsonl" if text.lstrip().startswith("{") else ".txt"
    if kind == ".txt":
        return ({"prompt": line} for line in text.replace("\r\n", "\n").split("\n") if line.strip())
    if kind == ".jsonl":
        return (_json_object(line, f"{where}, line {n}") for n, line in enumerate(text.split("\n"), 1) if line.strip())
    if kind == ".csv":
        return _csv_records(text, where)
    raise UserError(f"{where}: must end in .txt, .jsonl or .csv, or be {STANDARD_INPUT} for standard input")


def _csv_records(text: str, where: str) -> Iterator[dict[str, Any]]:
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        names = rows.fieldnames or ()
        if "prompt" not in names:
            raise UserError(f"{where}: no column `prompt`; it has {', '.join(names) or 'none'}")
        name, count = Counter(name for name in names if name).most_common(1)[0]
        if count > 1:
            raise UserError(f"{where}: two columns have the name {name!r}")
        for i, record in enumerate(rows, 1):
            if rows.restkey in record:
                raise UserError(
                    f"{where}: entry {i} has more fields than the header; put quotes around a text with commas"
                )
            yield record
    except csv.Error as error:
        raise UserError(f"{where}: not a CSV file: {error}") from None


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: not an object with `prompt`")
    return value
