"""Overrides from the command line: unknown, empty and contradictory ones are refused before Hydra reads them."""

import re
from dataclasses import fields, is_dataclass
from itertools import combinations
from typing import cast, get_type_hints

from gpt2x.cli.help import groups
from gpt2x.config.checks import choose
from gpt2x.config.schema import Config
from gpt2x.config.tasks import SCHEMAS, tasks_with
from gpt2x.errors import UserError, nearest
from gpt2x.prompts import PROMPT_FILES

_TEXTS = ("prompt", "task.gen_prompt", "decode.stop")
_RECORDED = ("prompt", "prompt_file", "task.gen_prompt", "decode.max_new_tokens")
_CONTRADICTIONS = (*combinations(("prompt", *PROMPT_FILES), 2), *(("task.reference", key) for key in _RECORDED))


def checked(overrides: list[str]) -> list[str]:
    """Overrides for Hydra. Raises UserError where one is no setting, is empty, or contradicts another.

    Prompts and stop strings are text: `${` in one is not an interpolation, and a backslash before it is a backslash.
    """
    of_groups = groups()
    known = {*of_groups, *_setting_keys()}
    result, keys = [], set()
    for override in overrides:
        key, (_, equals, value) = key_of(override), override.partition("=")
        if not equals or not key or (key in of_groups and value in ("", "null")):
            hint = f"did you mean 'task={override}'?" if override in SCHEMAS else "see gpt2x --help"
            raise UserError(f"{override!r}: write KEY=VALUE, and for a group one of its options; {hint}")
        if key == "task.name":
            choose("task", value, tuple(SCHEMAS))
            raise UserError(f"task.name={value}: write task={value}")
        if key not in known and not key.startswith(("hydra.", "hydra/")):
            raise UserError(_unknown(key, value))
        keys.add(key)
        result.append(re.sub(r"(\\*)\$\{", r"\1\1\\${", override) if key in _TEXTS else override)
    for one, other in _CONTRADICTIONS:
        if {one, other} <= keys:
            raise UserError(f"{one} and {other} contradict each other: give one of them")
    return result


def key_of(override: str) -> str:
    """`decode.top_p` for `+decode.top_p=0.9`, `hydra/launcher` for `hydra/launcher@here=joblib`."""
    return override.partition("=")[0].lstrip("+").partition("@")[0]


def nearest_key(key: str) -> str:
    """'; did you mean X?' for a setting with the same last part, or else with a similar name; '' if there is none."""
    keys = _setting_keys()
    leaf = key.rpartition(".")[2]
    same_leaf = [candidate for candidate in keys if candidate.rpartition(".")[2] == leaf]
    return f"; did you mean {same_leaf[0]!r}?" if same_leaf else nearest(key, keys)


def _unknown(key: str, value: str) -> str:
    """The message for a key that is no setting. For a setting that was renamed, it states the new name."""
    new = f"task.{key.removeprefix('train.')}"
    if key == "gen_prompt" or (key.startswith("train.") and "train" in tasks_with(new)):
        task = "validate" if key == "gen_prompt" else "train"
        return f"{key} is now {new}, a setting of task={task}: write task={task} {new}={value}"
    return f"{key}: no such setting{nearest_key(key)}"


def _setting_keys() -> list[str]:
    """Dotted keys of all settings of all tasks."""
    of_tasks = [key for schema in SCHEMAS.values() for key in _keys(schema, "task.")]
    return list(dict.fromkeys([*_keys(Config), *of_tasks]))


def _keys(schema: type, prefix: str = "") -> list[str]:
    hints = get_type_hints(schema)
    keys = []
    for field in fields(schema):
        keys.append(prefix + field.name)
        if is_dataclass(hints[field.name]):
            keys += _keys(cast(type, hints[field.name]), f"{prefix}{field.name}.")
    return keys
