"""Overrides from the command line: unknown, empty and contradictory ones are refused before Hydra reads them."""

import re
import shlex
from collections.abc import Sequence
from itertools import combinations

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from gpt2x.cli.help import groups, setting_types
from gpt2x.cli.old_flags import looks_like_a_path
from gpt2x.cli.prompt_axis import SWEEP_PROMPTS
from gpt2x.cli.quoting import TEXTS, hydra_quoted, setting_word, without_interpolations
from gpt2x.config.checks import choose
from gpt2x.config.sweep import OF_SWEEP
from gpt2x.config.tasks import READERS, SCHEMAS, tasks_with
from gpt2x.errors import UserError, nearest
from gpt2x.prompts import PROMPT_FILES

_RECORDED = ("prompt", "prompt_file", "task.gen_prompt", "decode.max_new_tokens")
PROMPT_SOURCES = frozenset(("prompt", *PROMPT_FILES))
"""The settings that prompts come from."""
_CONTRADICTIONS = (
    ("sweep", "hydra.sweep.dir"),
    ("sweep", "task.runs"),
    *combinations(("prompt", *PROMPT_FILES, SWEEP_PROMPTS), 2),
    ("prompt_id", SWEEP_PROMPTS),
    *(("task.reference", key) for key in _RECORDED),
    *(("subject=recorded", key) for key in ("prompt", "prompt_file")),
)
_EXAMPLES = {"sweep": "sweep=nucleus", "retries": "retries=2", "fail_fast": "fail_fast=true", "rerun": "rerun=stale"}
_SWEPT = "hydra.sweeper.params."
# What users may set of Hydra itself. gpt2x sets the rest: its callbacks, for example, and where a job's log goes.
_OF_HYDRA = (
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.mode", "hydra.searchpath", "hydra.verbose"),
    *("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper"),
    *("hydra.job.name", "hydra.job.env_set", "hydra.job.env_copy"),
)
_NO_WORD = re.compile(r"[-+\d.]\S*|true|false", re.IGNORECASE)
"""A name that Hydra may read as a number or a truth value."""
_PLAIN_IDS = re.compile(r"[\w.+-]+(,[\w.+-]+)*")
_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")


def checked(overrides: Sequence[str], multirun: bool) -> list[str]:
    """Overrides for Hydra. Raises UserError where one is no setting, is empty, or contradicts another.

    `multirun` is whether the command has the flag `-m`. Prompts and stop strings are text: `${` in one is not an
    interpolation, and a backslash before it is a backslash.
    """
    result, keys = [], set()
    is_sweep = (
        multirun or implies_sweep(overrides) or not {"experiment", "hydra.mode"}.isdisjoint(map(key_of, overrides))
    )
    for text in map(_as_setting, overrides):
        key = key_of(text)
        override = _parsed(text)
        _check_key(override, key, text)
        if key in TEXTS:
            _check_text(override, key, text, is_sweep)
            text = without_interpolations(text)
        if text != f"{key}=null":  # which removes what a preset sets
            keys.add(key)
        result.append(text)
    if is_alone(overrides):
        _check_reader(keys, multirun, collects="task=collect" in overrides)
    elif not is_sweep and (needless := keys & set(OF_SWEEP)):
        raise UserError(f"{min(needless)} is for a sweep: add sweep=NAME, or -m")
    if (multirun or implies_sweep(overrides)) and "hydra.run.dir" in keys:
        raise UserError("hydra.run.dir is for a run on its own; for a sweep, give hydra.sweep.dir=DIR")
    if not is_sweep and "hydra.sweep.dir" in keys:
        raise UserError("hydra.sweep.dir is for a sweep: add -m; for a run on its own, give hydra.run.dir=DIR")
    if not is_sweep and "hydra/sweeper" in keys:
        raise UserError("hydra/sweeper is for a sweep: add -m")
    for one, other in _CONTRADICTIONS:
        if {one, other} <= keys.union(result):
            raise UserError(f"{one} and {other} contradict each other: give one of them")
    return result


def implies_sweep(overrides: Sequence[str]) -> bool:
    """Whether the command is a sweep without -m, because it has a name for one, or prompts as an axis."""
    return not {"sweep", SWEEP_PROMPTS}.isdisjoint(map(key_of, overrides)) and not is_alone(overrides)


def is_alone(overrides: Sequence[str]) -> bool:
    """Whether the task of the command reads other runs, and is no job of a sweep."""
    return any(each in [f"task={name}" for name in READERS] for each in overrides)


def _check_reader(keys: set[str], multirun: bool, collects: bool) -> None:
    """Raises UserError for a task that reads other runs, as a job of a sweep, or with a folder that it cannot use."""
    if multirun:
        raise UserError("a task that reads other runs is no job of a sweep: leave -m out")
    if collects and {"sweep", "hydra.run.dir"} <= keys:
        raise UserError("hydra.run.dir: the tables of a sweep are written into its own folder")


def key_of(override: str) -> str:
    """`decode.top_p` for `+decode.top_p=0.9`, `hydra/launcher` for `hydra/launcher@here=joblib`."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def nearest_key(key: str) -> str:
    """'; did you mean X?' for a setting with the same last part, or else with a similar name; '' if there is none."""
    keys = [*setting_types(), *groups()]
    leaf = key.rpartition(".")[2]
    same_leaf = [candidate for candidate in keys if candidate.rpartition(".")[2] == leaf]
    return f"; did you mean {same_leaf[0]!r}?" if same_leaf else nearest(key, keys)


def quoting_advice(key: str, value: str) -> str:
    """How to type this text as the value of a setting."""
    enclosed = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    file = ", or put the text into a file: prompt_file=FILE" if key == "prompt" else ""
    return f"for this text, type {setting_word(key, value[1:-1] if enclosed else value)}{file}"


def _as_setting(text: str) -> str:
    """The override in its plain form: `notes=x` for `+notes=x`, `seed=1,2` for `hydra.sweeper.params.seed=1,2`.

    The latter is what Hydra's sweepers make of it; of a quoted value, they take what is in the quotes.
    """
    key, _, value = text.partition("=")
    if key.lstrip("+") == "notes":
        return text.lstrip("+")
    if key == "prompt_id" and value != "null" and _PLAIN_IDS.fullmatch(value):  # Hydra would read 007 as a number
        return f"{key}={','.join(map(hydra_quoted, value.split(',')))}"
    if key == "sweep" and _NO_WORD.fullmatch(value):
        return f"{key}={hydra_quoted(value)}"
    if not key.lstrip("+").startswith(_SWEPT) or not value:
        return text
    override = _parsed(text)
    quoted = None if override.is_sweep_override() else override.value()
    return f"{key.lstrip('+').removeprefix(_SWEPT)}={quoted if isinstance(quoted, str) else value}"


def _parsed(text: str) -> Override:
    """The override as Hydra reads it. Raises UserError where it cannot be read."""
    key, equals, value = text.partition("=")
    if not key_of(text) or not (equals or text.startswith("~")):
        raise UserError(f"{text!r}: write KEY=VALUE; see gpt2x --help")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        if re.fullmatch(r"[+~]*[\w./-]+(@[\w.:-]*)?", key, re.ASCII) is None:
            raise UserError(f"{text!r}: {key!r} is no name of a setting; see gpt2x --help") from None
        raise UserError(f"cannot parse {text!r}; {quoting_advice(key_of(text), value)}") from None


def _check_key(override: Override, key: str, text: str) -> None:
    """Raises UserError for a key that is no setting, and for what cannot be done with a setting."""
    value = text.partition("=")[2]
    options = groups().get(key)
    if override.is_delete():
        if not key.startswith(_SWEPT):
            raise UserError(f"{text}: a setting cannot be removed; give it another value with {key}=VALUE")
        return
    if override.package is not None or "@" in text.partition("=")[0]:
        raise UserError(f"{text}: a group cannot be moved; write {key}={value}")
    if value == "???" and key not in TEXTS:
        raise UserError(f"{text}: for Hydra, ??? is a missing value; give another one")
    if key == "task.name":
        choose("task", value, tuple(SCHEMAS))
        raise UserError(f"task.name={value}: write task={value}")
    if key.startswith(("hydra.", "hydra/")):
        if not key.startswith(_OF_HYDRA):
            raise UserError(f"{key}: gpt2x sets this; what you may set of Hydra is {', '.join(_OF_HYDRA)}")
        _check_folder(override, key, text)
    elif key not in setting_types() and options is None and key != SWEEP_PROMPTS:
        raise UserError(_unknown(key, value))
    if key in OF_SWEEP and (override.is_sweep_override() or value in ("", "null")):
        raise UserError(f"{text}: give one value, such as {_EXAMPLES[key]}")
    if options is None:
        return
    if key in ("model", "weights") and value not in options and looks_like_a_path(value):
        path = setting_word("weights.path", value)
        raise UserError(f"{text}: not one of {', '.join(options)}; for a file or folder, write {path}")
    if value in ("", "null") or not (override.is_sweep_override() or isinstance(override.value(), str)):
        raise UserError(f"{text}: name one of the options {', '.join(options)}")


def _check_folder(override: Override, key: str, text: str) -> None:
    """Raises UserError for a folder that Hydra would take for another one, or that is no folder in the sweep's."""
    if key not in _FOLDERS or override.is_sweep_override():
        return
    value = override.value()
    if value in ("", None, "???") or "\\${" in str(value):
        raise UserError(f"{text}: name a folder")
    if key == "hydra.sweep.subdir" and ("/" in str(value) or value in (".", "..")):
        raise UserError(f"{text}: name a folder directly in that of the sweep, so that its tables are collected")


def _check_text(override: Override, key: str, text: str, is_sweep: bool) -> None:
    """Raises UserError for a text that Hydra would read as something else: several values, or a dictionary."""
    value = text.partition("=")[2]
    if override.is_sweep_override() and (key == "notes" or not is_sweep):
        other = "" if key == "notes" else "; for one job per value, add -m"
        raise UserError(f"{text}: several values; {quoting_advice(key, value)}{other}")
    if not override.is_sweep_override() and isinstance(override.value(), dict):
        raise UserError(f"{text}: not text; {quoting_advice(key, value)}")


def _unknown(key: str, value: str) -> str:
    """The message for a key that is no setting. For a setting that was renamed, it states the new name."""
    new = f"task.{key.removeprefix('train.')}"
    if key == "gen_prompt" or (key.startswith("train.") and "train" in tasks_with(new)):
        task = "validate" if key == "gen_prompt" else "train"
        return f"{key} is now {new}, a setting of task={task}: write task={task} {new}={shlex.quote(value)}"
    return f"{key}: no such setting{nearest_key(key)}"
