"""The parts of --help that depend on the command: the groups, and the settings of the chosen task."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf

from gpt2x.cli.comments import comments_of, headline
from gpt2x.config.schema import Config
from gpt2x.config.tasks import SCHEMAS, is_used
from gpt2x.paths import bundled

WIDTH = 80
# Groups of Hydra that a sweep may choose from, and what Hydra's own option means; conf/hydra has the others.
_BASIC = {
    "launcher": "one job after another, in the process of the command, which loads the model once",
    "sweeper": "every combination of the values",
}
_NAMES = {str: "text", int: "int", float: "float", bool: "bool", Any: "any"}


@dataclass(frozen=True)
class Setting:
    """One setting, as --help shows it."""

    key: str
    """The dotted key."""
    type: str
    value: str
    """As it is written on the command line."""
    meaning: str


def groups() -> dict[str, list[str]]:
    """Name of each group in conf/ -> the names of its options."""
    return {name: [file.stem for file in files] for name, files in _option_files().items()}


def groups_help(*, _root_: DictConfig) -> str:
    """Every group with its options, one option per paragraph; the chosen one is marked with `*`.

    Options in a folder of the user's follow those of gpt2x.
    """
    choices = _root_.hydra.runtime.choices
    own = [Path(source.path) for source in _root_.hydra.runtime.config_sources if source.provider == "command-line"]
    lines = []
    options = {name: {file.stem: headline(file) for file in files} for name, files in _option_files().items()}
    for name, meanings in (options | _options_of_hydra()).items():
        lines.append(f"{name}=")
        for folder in own:
            meanings |= {file.stem: headline(file) for file in _options_in(folder / name) if file.stem not in meanings}
        for option, meaning in meanings.items():
            mark = "*" if choices.get(name) == option else " "
            lines += _paragraph(f"{mark} {option:<13} ", meaning)
    return _for_template(lines)


def settings_help(*, _root_: DictConfig) -> str:
    """The settings that the chosen task uses, each with its type, value and meaning."""
    lines = []
    part = None
    for setting in settings_of(_root_):
        if part != (part := setting.key.rpartition(".")[0]):
            lines.append("")
        lines += _paragraph(f"{setting.key:<28} {setting.type:<20} ", setting.value)
        lines += _paragraph(" " * 4, setting.meaning)
    return _for_template(lines[1:])


def settings_of(cfg: DictConfig) -> list[Setting]:
    """The settings that the task of a configuration uses: first those of no group, then group by group."""
    task, choices = cfg.task.name, cfg.hydra.runtime.choices
    shared, of_task = list(_types(Config)), _types(SCHEMAS[task], "task.")
    types = [*of_task, *sorted(shared, key=lambda pair: "." in pair[0])]
    meanings = comments_of(bundled("conf") / "config.yaml")
    used = {key.partition(".")[0] for key, _ in types}
    for group, files in _option_files().items():
        if group in used:
            meanings |= _meanings(group, files, str(choices.get(group)))
    return [
        Setting(key, hint, _shown(OmegaConf.select(cfg, key)), meanings.get(key, ""))
        for key, hint in types
        if key != "task.name" and is_used(task, key)
    ]


@cache
def setting_types() -> dict[str, str]:
    """Dotted key of each setting of all tasks -> its type."""
    types = dict(_types(Config))
    for schema in SCHEMAS.values():
        types |= _types(schema, "task.")
    return types


def _option_files() -> dict[str, list[Path]]:
    """Name of each group in conf/ -> the files of its options."""
    folders = sorted(folder for folder in bundled("conf").iterdir() if folder.is_dir() and folder.name != "hydra")
    return {folder.name: _options_in(folder) for folder in folders}


def _options_in(group: Path) -> list[Path]:
    """The files of the options of a group in one folder; empty if there is no such folder."""
    return sorted(group.glob("*.yaml"), key=lambda file: file.stem)


def _options_of_hydra() -> dict[str, dict[str, str]]:
    """Name of each group of Hydra for which conf/ has presets -> option -> its meaning; Hydra's own option first."""
    folder = bundled("conf") / "hydra"
    return {
        f"hydra/{name}": {"basic": meaning} | {file.stem: headline(file) for file in _options_in(folder / name)}
        for name, meaning in _BASIC.items()
    }


def _meanings(group: str, files: list[Path], option: str) -> dict[str, str]:
    """Meaning of each setting of a group, by dotted key: from the file of the option, or else from another option's."""
    relevant = [file for file in files if group != "task" or file.stem == option]  # tasks share none
    found: dict[str, str] = {}
    for file in sorted(relevant, key=lambda file: file.stem == option):
        found |= {f"{group}.{key}": text for key, text in comments_of(file).items() if text}
    return found


def _types(schema: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and type of each setting of a schema; the task's own are left out of the whole configuration."""
    hints = get_type_hints(schema, include_extras=True)
    for field in fields(schema):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from _types(hint, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        elif (schema, field.name) != (Config, "task"):
            yield prefix + field.name, _type_name(hint)


def _type_name(hint: Any) -> str:
    """A type in the words of --help: `int or null`, `list of text`."""
    if get_origin(hint) is Annotated:
        return str(get_args(hint)[1])
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_type_name(each) for each in get_args(hint))
    if get_origin(hint) is list:
        return f"list of {_type_name(get_args(hint)[0])}"
    return "null" if hint is NoneType else _NAMES[hint]


def _shown(value: Any) -> str:
    """A value as it is written on the command line."""
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if isinstance(plain, str) and plain.isprintable() and plain:
        return plain
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"), allow_unicode=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _paragraph(first: str, text: str) -> list[str]:
    """`first` and the text, wrapped; the text's other lines start below its first."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False
    ) or [first.rstrip()]


def _for_template(lines: list[str]) -> str:
    """The lines as one text; `$` is doubled, for the template that the text goes into."""
    return "\n".join(lines).replace("$", "$$")
