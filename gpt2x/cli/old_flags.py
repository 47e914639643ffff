"""Flags of other GPT-2 scripts, such as `--top-k 5`, as the settings of gpt2x that they correspond to."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from gpt2x.cli.help import groups, setting_types
from gpt2x.cli.quoting import setting_word, shell_quoted
from gpt2x.config.tasks import SCHEMAS, is_used

ALIASES = {
    **dict.fromkeys(("model_name", "model_name_or_path", "model_size", "model_type"), "model"),
    **dict.fromkeys(("checkpoint", "ckpt", "checkpoint_path", "ckpt_path", "weights"), "weights.path"),
    **dict.fromkeys(("text", "input", "start"), "prompt"),
    **dict.fromkeys(("length", "max_tokens", "num_tokens"), "decode.max_new_tokens"),
    **dict.fromkeys(("num_return_sequences", "nsamples", "n_samples"), "decode.num_samples"),
    "temp": "decode.temperature",
    "beams": "decode.num_beams",
    **dict.fromkeys(("out", "output", "output_dir", "out_dir"), "hydra.run.dir"),
    **dict.fromkeys(("max_steps", "max_iters", "num_steps"), "task.steps"),
    "learning_rate": "task.lr",
}
"""Name of a flag, with underscores -> the setting, where the name is another one."""

_SIZES = {"124M": "gpt2", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}
"""The names of the sizes in OpenAI's scripts (https://github.com/openai/gpt-2) -> options of `model`."""
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

    def __str__(self) -> str:
        words = [setting_word(key, value) for key, value in self.settings]
        task = self._task()
        return " ".join(["gpt2x", *([f"task={task}"] if task else []), *map(shell_quoted, self.kept), *words])

    def _task(self) -> str | None:
        """The task to name, if none is: the first that uses all settings; for a prompt, generate."""
        keys = [key for key, _ in self.settings if key != "hydra.run.dir"]
        if "task" in keys or any(word.startswith("task=") for word in self.kept):
            return None
        if any(key.startswith(("prompt", "decode")) for key in keys):
            return "generate"
        task = next((task for task in SCHEMAS if all(is_used(task, key) for key in keys)), None)
        return None if task == next(iter(SCHEMAS)) else task


def new_form(words: list[str], flags: Collection[str], with_value: Collection[str]) -> tuple[str, str] | None:
    """The first old flag (or bare name of a task) in a command, and the whole command in its new form.

    None if there is no such flag, and if one of the flags has no counterpart. `flags` are Hydra's, and `with_value`
    those among them that take the next word as their value.
    """
    command, rest, types = _Command(), deque(words), setting_types()
    while rest:
        word = rest.popleft()
        name, equals, value = word.partition("=")
        if name in flags:
            command.kept.append(word)
            if name in with_value and not equals and rest:
                command.kept.append(rest.popleft())
        elif name.startswith("--"):
            key = _setting_of(name, types)
            if key is None:
                return None
            if not equals:
                is_switch = types.get(key) == "bool" or not rest or _is_flag(rest[0])
                value = "true" if is_switch else rest.popleft()
            command.replaced.append(name)
            command.settings.append(_with_value(key, value))
        elif word in SCHEMAS:
            command.replaced.append(word)
            command.settings.insert(0, ("task", word))
        else:
            command.kept.append(word)
    return (command.replaced[0], str(command)) if command.replaced else None


def looks_like_a_path(value: str) -> bool:
    """Whether a value can only mean a file or a folder, and not an option of a group."""
    return value.endswith(_SUFFIXES) or value.startswith("~") or "/" in value


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not word[1:2].isdigit()


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
