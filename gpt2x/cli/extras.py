"""Which extra of gpt2x installs each of Hydra's plugins."""

EXTRAS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/ray": "ray",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/sweeper/optuna": "optuna",
}


def missing_plugin(config: str) -> str | None:
    """The message for an option that Hydra does not find, such as schema/launcher/ray, if it belongs to an extra."""
    option = config.replace("schema/", "hydra/", 1).removesuffix("_plugin")
    if option not in EXTRAS:
        return None
    group, _, name = option.rpartition("/")
    return f"{group}={name}: it is not installed: pip install 'gpt2x[{EXTRAS[option]}]'"
