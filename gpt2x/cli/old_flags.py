"""Flags of other GPT-2 scripts, such as `--top-k 5`, as the settings of gpt2x that they correspond to."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from gpt2x.checkpoints.locate import find_local_weights
from gpt2x.cli.help import groups, setting_types
from gpt2x.cli.quoting import TEXTS, setting_word
from gpt2x.config.model import ModelConfig
from gpt2x.config.tasks import SCHEMAS, is_used
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.shell import shell_quoted

ALIASES = {
    **dict.fromkeys(("model_name", "model_name_or_path", "model_size", "model_type", "init_from"), "model"),
    **dict.fromkeys(("checkpoint", "ckpt", "checkpoint_path", "ckpt_path", "weights"), "weights.path"),
    **dict.fromkeys(("text", "input", "start"), "prompt"),
    **dict.fromkeys(("length", "max_length", "max_tokens", "num_tokens"), "decode.max_new_tokens"),
    **dict.fromkeys(("num_return_sequences", "nsamples", "n_samples"), "decode.num_samples"),
    "temp": "decode.temperature",
    "beams": "decode.num_beams",
    **dict.fromkeys(("out", "output", "output_dir", "out_dir"), "hydra.run.dir"),
    **dict.fromkeys(("max_steps", "max_iters", "num_steps"), "task.steps"),
    "learning_rate": "task.lr",
    **dict.fromkeys(("dataset", "train_data"), "task.data"),
    "eval_interval": "task.eval_every",
    "k": "decode.top_k",
    "p": "decode.top_p",
    "stop_token": "decode.stop",
    **dict.fromkeys(("greedy", "do_sample"), "decode"),
    "fp16": "dtype",
}
"""Name of a flag, with underscores -> the setting, where the name is another one."""

_SIZES = {"124M": "gpt2", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}
"""The names of the sizes in OpenAI's scripts (https://github.com/openai/gpt-2) -> options of `model`."""
_SWITCHES = {
    "greedy": ("greedy", "sample"),
    "do_sample": ("sample", "greedy"),
    "fp16": ("float16", "float32"),
}
"""A flag that is true or false -> the values of its setting for true and for false."""
_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


@dataclass
class _Command:
    """The parts of a command in its new form."""

    kept: list[str] = field(default_factory=list)
    """Flags of Hydra and settings, as they were given."""
    settings: list[tuple[str, str]] = field(default_factory=list)
    """Key and value of each setting that was a flag."""
    replaced: list[str] = field(default_factory=list)
    """The flags and the task's bare name, as they were given."""

    unknown: list[str] = field(default_factory=list)
    """The flags that no setting corresponds to."""

    def __str__(self) -> str:
        task = self._task()
        self._add_weights()
        is_sweep = not {"-m", "--multirun"}.isdisjoint(self.kept)
        words = [_kept_word(word, is_sweep) for word in self.kept]
        settings = dict(self.settings)
        if is_sweep and "hydra.run.dir" in settings:
            settings["hydra.sweep.dir"] = settings.pop("hydra.run.dir")
        words += [_word(key, value) for key, value in settings.items()]
        return " ".join(["gpt2x", *([f"task={task}"] if task else []), *words])

    def _add_weights(self) -> None:
        """Adds weights=auto for a model that other scripts download, where no weights are named or found."""
        model = dict(self.settings).get("model")
        keys = [*dict(self.settings), *self.kept]
        if model not in groups()["model"] or any(key.startswith("weights") for key in keys):
            return
        if find_local_weights(ModelConfig(name=model), WeightsConfig(source="local")) is None:
            self.settings.insert([key for key, _ in self.settings].index("model") + 1, ("weights", "auto"))

    def _task(self) -> str | None:
        """The task to name, if none is: the first that uses all settings; for a prompt, generate."""
        keys = [key for key, _ in self.settings if key != "hydra.run.dir"]
        if "task" in keys or any(word.startswith("task=") for word in self.kept):
            return None
        if any(key.startswith(("prompt", "decode")) for key in keys):
            return "generate"
        task = next((task for task in SCHEMAS if all(is_used(task, key) for key in keys)), None)
        return None if task == next(iter(SCHEMAS)) else task


def new_form(words: list[str], flags: Collection[str], with_value: Collection[str]) -> str | None:
    """What to answer to a command with old flags (or a task's bare name): the whole command in its new form.

    None if there is no such flag. `flags` are Hydra's, and `with_value` those among them that take the next word as
    their value. Raises UserError for a flag without its value.
    """
    command, rest = _Command(), deque(words)
    while rest:
        word = rest.popleft()
        name, equals, _ = word.partition("=")
        if name in flags:
            command.kept.append(word)
            if name in with_value and not equals and rest:
                command.kept.append(rest.popleft())
        elif name.startswith("--"):
            _replace(word, rest, command)
        elif word in SCHEMAS:
            command.replaced.append(word)
            command.settings.insert(0, ("task", word))
        else:
            command.kept.append(word)
    if not command.replaced:
        return None
    unknown = f", and no setting corresponds to {', '.join(command.unknown)}" if command.unknown else ""
    return f"{command.replaced[0]} is not a flag or a setting{unknown}; use settings: {command}"


def _replace(word: str, rest: deque[str], command: _Command) -> None:
    """Adds the setting that a flag means; takes its value from the words after it, where it is not in the word."""
    flag, equals, value = word.partition("=")
    name, types = flag.removeprefix("--").replace("-", "_"), setting_types()
    key = _setting_of(flag, types)
    is_switch = name in _SWITCHES or types.get(key or "") == "bool"
    follows = rest[0] if rest and not _is_flag(rest[0]) else None
    if is_switch and follows is not None and follows.lower() not in ("true", "false"):
        follows = None
    if key is None and follows is not None and "=" in follows:  # a setting, rather than the unknown flag's value
        follows = None
    if not equals and follows is not None:
        value, equals = rest.popleft(), "="
    if key is None:
        command.unknown.append(flag)
        return
    if is_switch:
        is_true = not equals or value.lower() in ("true", "1", "yes")
        value = _SWITCHES.get(name, ("true", "false"))[not is_true]
    elif not equals:
        raise UserError(f"{flag} needs a value; see gpt2x --help")
    if name == "start" and value.startswith("FILE:"):
        key, value = "prompt_file", value.removeprefix("FILE:")
    command.replaced.append(flag)
    command.settings.append(_with_value(key, value))


def _word(key: str, value: str) -> str:
    """The setting as one word; only texts and paths are quoted for Hydra, so that `seed=1,2` stays a sweep."""
    is_text = key in TEXTS or key.startswith("hydra.") or setting_types().get(key) == "text or null"
    return setting_word(key, value) if is_text else shell_quoted(f"{key}={value}")


def _kept_word(word: str, is_sweep: bool) -> str:
    """A word of the command, for the shell; a text that Hydra would not read as one is quoted for Hydra as well."""
    key, _, value = word.partition("=")
    if key in TEXTS:
        try:
            override = OverridesParser.create().parse_override(word)
            fits = is_sweep if override.is_sweep_override() else not isinstance(override.value(), dict)
        except HydraException:
            fits = False
        if not fits:
            return setting_word(key, value)
    return shell_quoted(word)


def looks_like_a_path(value: str) -> bool:
    """Whether a value can only mean a file or a folder, and not an option of a group."""
    return value.endswith(_SUFFIXES) or value.startswith("~") or "/" in value


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-" and not word[1:2].isdigit() and " " not in word


def _setting_of(flag: str, types: dict[str, str]) -> str | None:
    """The setting that a flag means: by its alias, its name, or the last part of a setting's name."""
    name = flag.removeprefix("--").replace("-", "_")
    if name in ALIASES:
        return ALIASES[name]
    if name in types or name in groups():
        return name
    return next((key for key in types if key.rpartition(".")[2] == name != "name"), None)


def _with_value(key: str, value: str) -> tuple[str, str]:
    """Key and value of the setting: an option of a group stays one, a path to weights is weights.path."""
    if key == "weights.path" and value in groups()["weights"]:
        return "weights", value
    if key == "model" and value not in groups()["model"]:
        name = value.rpartition("/")[2]  # of the Hugging Face hub: openai-community/gpt2
        name = _SIZES.get(name, name)
        if name in groups()["model"] and not Path(value).exists():
            return "model", name
        if looks_like_a_path(value):
            return "weights.path", value
    return key, value
