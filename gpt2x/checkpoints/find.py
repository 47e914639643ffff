"""Which weights a configuration means: a path, or none for random ones. Touches no tensor."""

from pathlib import Path

from gpt2x.errors import UserError
from gpt2x.paths import bundled
from gpt2x.schema import ModelConfig, WeightsConfig


def find_weights(model: ModelConfig, weights: WeightsConfig) -> Path | None:
    """The file or directory to load, or None for weights=random; UserError if there is none.

    local: weights.path, else the data folder of the launch directory, else the bundled one.
    auto: the same, then the Hugging Face cache, then the hub; model=auto then means gpt2.
    """
    if weights.source == "random":
        return None
    if weights.path is not None:
        path = Path(weights.path)
        if not path.exists():
            raise UserError(f"weights.path={weights.path}: no such file or directory")
        return path
    name = "gpt2" if model.name == "auto" else model.name
    found = _in_data(name)
    if found is None and weights.source == "auto":
        from gpt2x.checkpoints.hub import fetch

        return fetch(name, weights.revision)
    if found is None and model.name == "auto":
        found = _in_data("nano")
    if found is None:
        raise UserError(
            f"no weights for {name}: put {name}_weights.safetensors or {name}_weights.pt into data/, "
            "or name a file with weights.path=FILE, or download them with weights=auto"
        )
    return found


def _in_data(name: str) -> Path | None:
    for data in (Path("data"), bundled("data")):
        for file in (data / f"{name}_weights.safetensors", data / f"{name}_weights.pt"):
            if file.is_file():
                return file
        if (data / name / "config.json").is_file():  # data/gpt2 may hold the vocabulary only
            return data / name
    return None
