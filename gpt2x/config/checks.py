"""Checks of settings. Each raises UserError, with the setting and the values that are allowed."""

import json
from typing import Any

from gpt2x.errors import UserError, nearest


def choose(key: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise UserError(f"{key}={value}: not one of {', '.join(options)}{nearest(value, options)}")


def at_least(key: str, value: float | None, least: float) -> None:
    if value is not None and not value >= least:  # not >=: NaN fails too
        raise UserError(f"{key}={value}: must be at least {least}")


def check_dtype(key: str, value: str) -> None:
    choose(key, value, ("float32", "float64", "bfloat16", "float16", "int8"))


def check_batch_size(key: str, value: Any) -> None:
    if value != "auto" and (type(value) is not int or value < 1):
        raise UserError(f"{key}={value}: must be auto, or a whole number of at least 1")


def check_seed(key: str, value: int) -> None:
    if not isinstance(value, int) or not 0 <= value < 2**63:  # what torch's generators take
        raise UserError(f"{key}={value}: must be a whole number, at least 0 and below 2**63")


def check_text(key: str, value: Any) -> None:
    """One text, as check_texts."""
    if isinstance(value, list):
        raise UserError(f"{key}: {len(value)} values; give one text")
    check_texts(key, value)


def check_texts(key: str, value: Any) -> None:
    """None, one text or a list of texts. A number is refused: Hydra reads an unquoted 007 as 7."""
    texts = value if isinstance(value, list) else [value] if value is not None else []
    for number, text in enumerate(texts, 1):
        if isinstance(text, str):
            continue
        typed = json.dumps(text) if text is None or isinstance(text, bool) else str(text)  # true, and not True
        if isinstance(text, list | dict):
            raise UserError(f"{key}: {typed} is not text; put quotes around each text")
        if len(texts) > 1:
            raise UserError(f'{key}: entry {number} is {typed}, not text; in the list, write "{typed}"')
        raise UserError(f"{key}={typed}: not text; put quotes inside the quotes: '{key}=\"{typed}\"'")
