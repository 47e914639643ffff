"""Checkpoints of training scripts: a state dict under one key, and the options of the model beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2x.checkpoints.contents import Contents, Layout, Stated, stated
from gpt2x.errors import UserError
from gpt2x.paths import shown
from gpt2x.visible import visible

_MODEL = ("model", "state_dict", "model_state_dict", "module")
"""Keys of the state dict: nanoGPT's, Lightning's, that of PyTorch's tutorials, and DeepSpeed's."""
_OPTIONS = ("model_args", "config", "hyper_parameters", "args")
_NAMES = {
    "vocab_size": ("vocab_size",),
    "n_positions": ("block_size", "n_positions", "n_ctx"),
    "n_embd": ("n_embd",),
    "n_layer": ("n_layer",),
    "n_head": ("n_head",),
    "bias": ("bias",),
}
_EXACT_GELU = (
    "nanoGPT's current model has the exact GELU, and GPT-2 the tanh approximation: the checkpoint does not tell which "
    "of them it was trained with"
)


class Options:
    """Stands for an object of a class of options, such as build-nanogpt's GPTConfig: only its attributes are read."""


def unwrapped(loaded: Any, format: str, path: Path) -> Contents:
    """The state dict in what torch.save wrote, and the architecture that stands beside it.

    Raises UserError where there is no state dict, and where it holds anything but tensors.
    """
    options: Stated | None = None
    layout: Layout | None = None
    notes: list[str] = []
    state, where = loaded, ""
    while isinstance(state, Mapping) and state and not all(isinstance(value, Tensor) for value in state.values()):
        key = next((key for key in _MODEL if isinstance(state.get(key), Mapping)), None)
        if key is None:
            break
        if options is None:
            options, layout = _stated(state, path)
            if layout is not None and "model_args" in state:
                notes.append(_EXACT_GELU)
        read = {key, options.origin} if options is not None else {key}
        others = [_described(name, value) for name, value in state.items() if name not in read]
        if others:
            notes.append(f"not read, beside the weights: {', '.join(others[:6])}{', ...' if len(others) > 6 else ''}")
        state, where = state[key], f" under {key!r}"
    if not isinstance(state, Mapping) or not state:
        kind = type(state).__name__
        raise UserError(f"{shown(path)}: not a state dict but a {kind}{where}; save model.state_dict()")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{shown(path)}: not a state dict{where}: {str(name)[:80]!r} is a {type(value).__name__}; "
                "save model.state_dict()"
            )
    return Contents(format, dict(state), layout, options, notes=tuple(notes))


def _stated(state: Mapping[Any, Any], path: Path) -> tuple[Stated | None, Layout | None]:
    """The architecture in the options beside a state dict, and the layout, which those of nanoGPT's kind fix."""
    for key in _OPTIONS:
        values = state.get(key)
        values = vars(values) if isinstance(values, Options) else values
        if not isinstance(values, Mapping) or not {"n_layer", "n_head", "n_embd"} <= set(values):
            continue
        names = {field: next((own for own in owns if own in values), owns[0]) for field, owns in _NAMES.items()}
        is_nanogpt = key in ("model_args", "config") and "block_size" in values
        return stated(key, values, names, shown(path)), Layout.LINEAR if is_nanogpt else None
    return None, None


def _described(name: Any, value: Any) -> str:
    """A key of the file, with its value where that is a number."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return visible(f"{str(name)[:40]}={value:.6g}" if is_number else str(name)[:40])
