"""Settings by dotted key: which of them differ from the defaults, and which a task does not use."""

from collections.abc import Iterable, Mapping
from typing import Any

from gpt2x.config.tasks import SCHEMAS, is_used, reads, tasks_with
from gpt2x.errors import UserError


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys in alphabetical order; lists are values."""
    flat: dict[str, Any] = {}
    for key in sorted(settings):
        value = settings[key]
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def used_settings(container: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the task reads, by dotted key, among all settings as nested dictionaries."""
    task = container["task"]["name"]
    return {key: value for key, value in flatten(container).items() if is_used(task, key)}


def non_default(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `settings` (flat) that differ from `defaults` (flat)."""
    absent = object()
    return {key: value for key, value in settings.items() if value != defaults.get(key, absent)}


def refuse_unused(task: str, keys: Iterable[str]) -> None:
    """Raises UserError for the first of these keys (dotted, or groups) that the task does not use."""
    schema = SCHEMAS[task]
    for key in keys:
        if key in ("task", "experiment") or key.startswith("hydra") or reads(schema, key):
            continue
        if task not in tasks_with(key):
            raise UserError(unused(task, key))


def unused(task: str, key: str) -> str:
    """The message for a setting that the task does not use."""
    users = " and ".join(f"task={name}" for name in tasks_with(key))
    return f"{key}: task={task} does not use it" + (f"; it is a setting of {users}" if users else "")
