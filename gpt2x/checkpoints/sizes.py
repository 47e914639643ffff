"""The known model sizes, from conf/model/*.yaml."""

from functools import cache

from gpt2x.model.config import GPT2Config
from gpt2x.paths import bundled

ARCHITECTURE = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")


@cache
def known_sizes() -> dict[str, GPT2Config]:
    """Name -> architecture, for every conf/model/*.yaml that states one."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # seven times as fast, where PyYAML was built with libyaml
    models = [yaml.load(file.read_text(), loader) for file in sorted(bundled("conf").glob("model/*.yaml"))]
    return {
        model["name"]: GPT2Config(**{key: model[key] for key in ARCHITECTURE})
        for model in models
        if model.get("n_embd")
    }


def size_like(config: GPT2Config, but_for: tuple[str, ...] = ()) -> str | None:
    """The name of the known size with this architecture, apart from the keys in `but_for`; None if there is none."""
    keys = [key for key in ARCHITECTURE if key not in but_for]
    for name, size in known_sizes().items():
        if all(getattr(size, key) == getattr(config, key) for key in keys):
            return name
    return None
