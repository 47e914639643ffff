"""Which run a configuration describes: its settings, and the content of its input files."""

import hashlib
import json
from contextlib import suppress
from typing import Any

from gpt2x.checkpoints.digest import checkpoint_digests, file_digests
from gpt2x.checkpoints.locate import find_local_weights
from gpt2x.checkpoints.tokenizer_files import named_directory, tokenizer_files
from gpt2x.cli.composition import default_settings
from gpt2x.config.model import ModelConfig
from gpt2x.config.settings import non_default, used_settings
from gpt2x.config.sweep import OF_SWEEP
from gpt2x.config.tasks import is_descriptive
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.paths import expanded, standard_input
from gpt2x.prompts import PROMPT_FILES, STANDARD_INPUT, read_prompts
from gpt2x.runs.job import Identity
from gpt2x.tasks.registry import TASKS


def identity_of(container: dict[str, Any]) -> Identity:
    """The identity of a job with these (nested) settings.

    One prompt of a prompts_file counts by its id, its text and its other columns, whatever else is in the file.
    Standard input counts by its content. A file that cannot be read counts by its path: the task reports what is
    wrong with it. So does a pipe, such as `task.data=<(command)`, which can be read only once.
    """
    task = TASKS[container["task"]["name"]]
    settings = identifying_settings(container)
    inputs: dict[str, list[str]] = {}
    for key in task.inputs:
        if settings.get(key) is None:
            continue
        with suppress(UserError, OSError):
            if key == "prompts_file" and settings["prompt_id"] is not None:
                (prompt,) = read_prompts(None, settings[key], prompt_id=settings["prompt_id"])
                inputs["prompt"] = [_digest([prompt.id, prompt.text, dict(prompt.extra)])]
                del settings[key], settings["prompt_id"]
                continue
            file = expanded(settings[key], key)
            if key in PROMPT_FILES and settings[key] == STANDARD_INPUT:
                inputs[key] = [hashlib.sha256(standard_input()).hexdigest()]
                del settings[key]
            elif file.is_file():
                inputs[key] = sorted(file_digests([file]).values())
                del settings[key]
    with suppress(UserError, OSError):
        weights = WeightsConfig(**container["weights"])
        path = find_local_weights(ModelConfig(**container["model"]), weights)
        if path is not None and task.reads_weights(weights):
            inputs["weights"] = sorted(checkpoint_digests(path).values())
            settings.pop("weights.path", None)
        if weights.tokenizer is not None:
            inputs["tokenizer"] = sorted(file_digests(tokenizer_files(named_directory(weights.tokenizer))).values())
            settings.pop("weights.tokenizer", None)
    return Identity(settings, inputs)


def identifying_settings(container: dict[str, Any]) -> dict[str, Any]:
    """The settings that identify a run of the task: those that it reads and that do more than describe it."""
    return {
        key: value for key, value in used_settings(container).items() if not is_descriptive(key) and key not in OF_SWEEP
    }


def key_of_job(container: dict[str, Any]) -> str:
    """The name of a job's folder in a sweep: 12 hexadecimal digits, so that no prompt becomes part of a path.

    They are the hash of the settings that differ from their defaults, so that a setting which a later gpt2x adds does
    not rename old jobs, and of the content of the input files.
    """
    return key_of(identity_of(container))


def key_of(identity: Identity) -> str:
    """key_of_job, where the identity is known."""
    name = identity.settings["task.name"]
    settings = non_default(identity.settings, default_settings(name)) | {"task.name": name}
    return hash_of([settings, identity.inputs])


def hash_of(content: Any) -> str:
    """The first 12 hexadecimal digits of the hash of lists, dictionaries and plain values."""
    return _digest(content)[:12]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
