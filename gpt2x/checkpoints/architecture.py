"""The architecture of a checkpoint: from its config.json, or from the shapes of its tensors."""

import re
from pathlib import Path

from torch import Tensor

from gpt2x.checkpoints.locate import checkpoint_directory, read_json
from gpt2x.checkpoints.sizes import ARCHITECTURE, known_sizes, size_like
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.paths import shown

_LAYER = re.compile(r"^transformer\.h\.(\d+)\.")
# Keys of transformers' GPT2Config that change the function, and the values that this model implements.
_IMPLEMENTED = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


def read_config(path: Path) -> GPT2Config | None:
    """The architecture in the config.json in or beside `path`; None without such a file.

    Raises UserError where config.json asks for something that this GPT-2 does not implement.
    """
    file = checkpoint_directory(path) / "config.json"
    if not file.is_file():
        return None
    config = read_json(file)
    if config.get("model_type", "gpt2") != "gpt2":
        raise UserError(f"{shown(file)}: model_type is {config['model_type']!r}, not 'gpt2'")
    implemented = _IMPLEMENTED | {"n_inner": (None, 4 * config.get("n_embd", GPT2Config.n_embd))}
    for key, allowed in implemented.items():
        if config.get(key, allowed[0]) not in allowed:
            raise UserError(f"{shown(file)}: {key}={config[key]!r} is not supported, only {allowed[0]!r}")
    default = GPT2Config()
    keys = (*ARCHITECTURE, "layer_norm_epsilon")
    try:
        return GPT2Config(**{key: config.get(key, getattr(default, key)) for key in keys})
    except (ValueError, TypeError) as error:
        raise UserError(f"{shown(file)}: {error}") from None


def infer_config(tensors: dict[str, Tensor], n_head: int | None, path: Path) -> GPT2Config:
    """The architecture that the shapes of full-named tensors tell.

    They do not tell n_head: without one given, it is that of the known size with these shapes. Raises UserError
    where the tensors are not those of a GPT-2, and where n_head is unknown or does not divide n_embd.
    """
    for name in ("transformer.wte.weight", "transformer.wpe.weight"):
        if name not in tensors or tensors[name].ndim != 2:
            raise UserError(f"{shown(path)}: not a GPT-2 checkpoint: it has no matrix {name}")
    vocab_size, n_embd = tensors["transformer.wte.weight"].shape
    shape = {
        "vocab_size": vocab_size,
        "n_positions": tensors["transformer.wpe.weight"].shape[0],
        "n_embd": n_embd,
        "n_layer": 1 + max((int(m[1]) for m in map(_LAYER.match, tensors) if m), default=0),
    }
    if n_head is None:
        size = size_like(GPT2Config(n_head=1, **shape), but_for=("n_head",))
        if size is None:
            raise UserError(
                f"{shown(path)}: a state dict does not tell the number of heads: add model.n_head=N, "
                "or put config.json beside the file"
            )
        n_head = known_sizes()[size].n_head
    if n_embd % n_head:
        raise UserError(f"model.n_head={n_head}: does not divide the n_embd {n_embd} of {shown(path)}")
    return GPT2Config(n_head=n_head, **shape)
