"""The parts of --help that depend on the command: the groups, and the settings of the chosen task."""

from omegaconf import DictConfig, OmegaConf

from gpt2x.config.tasks import SCHEMAS, reads
from gpt2x.paths import bundled


def groups() -> dict[str, list[str]]:
    """Name of each group in conf/ -> the names of its options."""
    folders = sorted(folder for folder in bundled("conf").iterdir() if folder.is_dir() and folder.name != "hydra")
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}


def groups_help() -> str:
    """One line per group."""
    return "\n".join(f"{name}: {', '.join(options)}" for name, options in groups().items())


def settings_help(*, _root_: DictConfig) -> str:
    """The settings that the chosen task uses, as YAML; `$` is doubled, for the template that this goes into."""
    schema = SCHEMAS[_root_.task.name]
    cfg = OmegaConf.masked_copy(
        _root_, [str(key) for key in _root_ if key == "task" or (key != "hydra" and reads(schema, str(key)))]
    )
    return OmegaConf.to_yaml(cfg).replace("$", "$$")
