"""A search by Optuna (`hydra/sweeper=optuna`): what is set before Hydra's plugin for Optuna starts.

The study lives in memory. The same command chooses the same jobs again, as the sampler's random numbers are seeded, so
that a search which was killed, or is to have more trials, goes on from the job folders: jobs that are done answer
with the number in their job.json.
"""

import logging
import warnings
from typing import cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Transformer
from omegaconf import DictConfig, OmegaConf, read_write

from gpt2x.cli.composition import to_container
from gpt2x.cli.help import setting_types
from gpt2x.cli.quoting import TEXTS, hydra_quoted
from gpt2x.config.checks import at_least, choose
from gpt2x.config.objective import Objective
from gpt2x.errors import UserError
from gpt2x.tasks.registry import TASKS

_PLUGIN = "hydra_plugins.hydra_optuna_sweeper"


def prepare_search(config: DictConfig) -> Objective | None:
    """Completes the settings of the plugin, and returns what the command optimizes; None if it is no search.

    Raises UserError for settings with which it cannot search.
    """
    sweeper = config.hydra.sweeper
    if config.hydra.runtime.choices["hydra/sweeper"] != "optuna":
        return None
    for key in ("n_trials", "n_jobs"):
        at_least(f"hydra.sweeper.{key}", sweeper[key], 1)
    if not 0 <= sweeper.max_failure_rate <= 1:
        raise UserError(f"hydra.sweeper.max_failure_rate={sweeper.max_failure_rate}: must be at least 0 and at most 1")
    for key in ("storage", "study_name"):
        if sweeper[key] is not None:
            raise UserError(f"hydra.sweeper.{key}: there is no database of trials; the same command goes on")
    if sweeper.sampler._target_.endswith(
        "GridSampler"
    ):  # it is not seeded, and the plugin ends when its last job fails
        raise UserError("hydra/sweeper/sampler=grid: for every combination, leave out hydra/sweeper=optuna")
    objective = _objective(config)
    _silence()
    with read_write(config.hydra):
        sweeper.direction = "maximize" if objective.maximize else "minimize"
        if "seed" in sweeper.sampler and sweeper.sampler.seed is None:
            sweeper.sampler.seed = 0
        overrides = cast(list[str], OmegaConf.to_container(config.hydra.overrides.task, resolve=False))
        config.hydra.overrides.task = [_adapted(text) for text in overrides]
        params = cast(dict[str, str], OmegaConf.to_container(sweeper.params or OmegaConf.create(), resolve=False))
        sweeper.params = {key: _adapted(f"{key}={values}").partition("=")[2] for key, values in params.items()}
    return objective


def _adapted(text: str) -> str:
    """The override in the form in which the plugin understands it as Hydra's own sweeper does.

    The plugin removes one pair of quotes around each of several texts, so they get another. The ends of an interval
    are float for Hydra, and so are the values that Optuna draws from it, also for a setting that takes whole numbers.
    """
    override = OverridesParser.create().parse_override(text)
    key, values = override.get_key_element(), override.value()
    if isinstance(values, IntervalSweep) and setting_types().get(override.key_or_group, "").startswith("int"):
        return f"{key}=int({text.partition('=')[2]})"
    if isinstance(values, ChoiceSweep) and override.key_or_group in TEXTS:
        choices = [hydra_quoted(each) if isinstance(each, str) else Transformer.str(each) for each in values.list]
        return f"{key}=choice({','.join(map(hydra_quoted, choices))})"
    return text


def has_no_trial(error: Exception) -> bool:
    """Whether this is how the plugin ends after a search in which no job gave a number."""
    return isinstance(error, ValueError) and str(error) == "No trials are completed yet."


def _objective(config: DictConfig) -> Objective:
    """The number that the task computes, and the direction: the number's, or the one that is set."""
    settings = to_container(config)["task"]
    task, score = TASKS[settings["name"]], settings.get("score")
    if score is not None:
        choose("task.score", score, tuple(each.name for each in task.objectives))
    objective = task.objective(score)
    if objective is None:
        able = ", ".join(f"task={each.name}" for each in TASKS.values() if each.objectives)
        raise UserError(f"hydra/sweeper=optuna: task={task.name} computes no number to optimize; use {able}")
    direction = config.hydra.sweeper.direction
    if direction is None:
        return objective
    choose("hydra.sweeper.direction", str(direction), ("minimize", "maximize"))
    return Objective(objective.name, direction == "maximize")


def _silence() -> None:
    """Optuna reports each trial on stderr, and its plugin each failure: the jobs report their own."""
    import optuna

    optuna.logging.set_verbosity(logging.ERROR)
    logging.getLogger(_PLUGIN).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"optuna\.")
