"""The architecture of a checkpoint: what its files state, and what the shapes of its tensors tell."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2x.checkpoints.contents import Stated, stated
from gpt2x.checkpoints.locate import checkpoint_directory, read_json
from gpt2x.checkpoints.sizes import ARCHITECTURE, size_like
from gpt2x.config.model import ModelConfig
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.paths import shown

HEAD_SIZE = 64
"""Width of a head in all sizes of GPT-2: n_head is n_embd / 64 where nothing states it."""
_LAYER = re.compile(r"transformer\.h\.(\d+)\.")
# Keys of transformers' GPT2Config that change the function, and the values that this model implements.
_IMPLEMENTED = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
_FIELDS = (*ARCHITECTURE, "layer_norm_epsilon")


def read_config(path: Path) -> Stated | None:
    """What config.json, in or beside `path`, states; None without such a file. What it leaves out has a default.

    OpenAI's hparams.json is read in its place. Raises UserError where config.json asks for something that this GPT-2
    does not implement.
    """
    directory = checkpoint_directory(path)
    if not (directory / "config.json").is_file():
        return _hparams(directory)
    file = directory / "config.json"
    config = read_json(file)
    if config.get("model_type", "gpt2") != "gpt2":
        raise UserError(f"{shown(file)}: model_type is {str(config['model_type'])[:40]!r}, not 'gpt2'")
    n_embd = config.get("n_embd", GPT2Config.n_embd)
    implemented = _IMPLEMENTED | {"n_inner": (None, 4 * n_embd if isinstance(n_embd, int) else None)}
    for key, allowed in implemented.items():
        if config.get(key, allowed[0]) not in allowed:
            raise UserError(f"{shown(file)}: {key}={str(config[key])[:40]!r} is not supported, only {allowed[0]!r}")
    default = GPT2Config()
    values = {key: config.get(key, getattr(default, key)) for key in _FIELDS}
    return replace(stated("config.json", values, {key: key for key in _FIELDS}, shown(file)), may_pad=False)


def _hparams(directory: Path) -> Stated | None:
    file = directory / "hparams.json"
    if not file.is_file():
        return None
    names = {"vocab_size": "n_vocab", "n_positions": "n_ctx", "n_embd": "n_embd", "n_head": "n_head"}
    return stated("hparams.json", read_json(file), names | {"n_layer": "n_layer"}, shown(file))


def architecture(
    tensors: Mapping[str, Tensor], said: Stated | None, asked: ModelConfig, path: Path
) -> tuple[GPT2Config, list[str]]:
    """The architecture of full-named tensors, and notes on what was concluded.

    Each part is what the user asks for, else what the checkpoint states, else what the shapes tell. They do not tell
    n_head: it is then n_embd / 64. Raises UserError where the tensors are not those of a GPT-2, or the parts do not
    fit together.
    """
    sizes: dict[str, Any] = shapes_tell(tensors, path)
    notes: list[str] = []
    if said is not None:
        sizes |= {key: value for key in _FIELDS if (value := getattr(said, key)) is not None}
    given = {key: getattr(asked, key) for key in ARCHITECTURE if getattr(asked, key) is not None}
    n_head, n_embd = sizes.get("n_head"), sizes["n_embd"]
    if given.get("n_head", n_head) != n_head and n_head is not None and given.get("n_embd", n_embd) == n_embd:
        assert said is not None
        raise UserError(f"model.n_head={given['n_head']}: {said.origin} of {shown(path)} says {n_head}")
    sizes |= given
    if "n_head" not in sizes:
        sizes["n_head"] = _n_head(sizes["n_embd"], path)
        if size_like(GPT2Config(**sizes)) is None:
            notes.append(
                f"nothing states n_head: it is taken as n_embd / {HEAD_SIZE} = {sizes['n_head']}; "
                "if that is wrong, add model.n_head=N"
            )
    try:
        return GPT2Config(**sizes), notes
    except ValueError as error:
        setting = f"model.n_head={given['n_head']}" if "n_head" in given else f"model={asked.name}"
        raise UserError(f"{setting} for {shown(path)}: {error}") from None


def shapes_tell(tensors: Mapping[str, Tensor], path: Path) -> dict[str, int]:
    """What the shapes of full-named tensors tell: all of the architecture but n_head.

    Raises UserError where the tensors are not those of a GPT-2.
    """
    for name in ("transformer.wte.weight", "transformer.wpe.weight"):
        if name not in tensors or tensors[name].ndim != 2 or 0 in tensors[name].shape:
            raise UserError(f"{shown(path)}: not a GPT-2 checkpoint: it has no matrix {name}")
    vocab_size, n_embd = tensors["transformer.wte.weight"].shape
    n_positions = tensors["transformer.wpe.weight"].shape[0]
    n_layer = _n_layer(tensors, path)
    return {"vocab_size": vocab_size, "n_positions": n_positions, "n_embd": n_embd, "n_layer": n_layer}


def _n_layer(tensors: Iterable[str], path: Path) -> int:
    """The number of layers. Raises UserError where a layer before the last one has no tensor."""
    layers = {int(found[1]) for found in map(_LAYER.match, tensors) if found}
    gap = next((layer for layer in range(len(layers)) if layer not in layers), None)
    if gap is not None:
        raise UserError(f"{shown(path)}: all tensors of transformer.h.{gap} are missing, but h.{max(layers)} is there")
    return max(len(layers), 1)


def _n_head(n_embd: int, path: Path) -> int:
    if n_embd % HEAD_SIZE:
        raise UserError(
            f"{shown(path)}: nothing states the number of heads, and n_embd {n_embd} is not a multiple of "
            f"{HEAD_SIZE}: add model.n_head=N, or put config.json beside the file"
        )
    return n_embd // HEAD_SIZE


def shapes_of(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Full name of each parameter but the head -> its shape in Hugging Face's layout, in the order of the model."""
    C, inner = config.n_embd, 4 * config.n_embd
    of_layer = {
        "ln_1": (C,),
        "attn.c_attn": (C, 3 * C),
        "attn.c_proj": (C, C),
        "ln_2": (C,),
        "mlp.c_fc": (C, inner),
        "mlp.c_proj": (inner, C),
    }
    modules = {f"h.{i}.{name}": shape for i in range(config.n_layer) for name, shape in of_layer.items()} | {
        "ln_f": (C,)
    }
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (config.vocab_size, C),
        "transformer.wpe.weight": (config.n_positions, C),
    }
    for name, shape in (modules | {"ln_f": (C,)}).items():
        shapes[f"transformer.{name}.weight"] = shape
        shapes[f"transformer.{name}.bias"] = shape[-1:]
    return shapes


def fitting(tensors: Mapping[str, Tensor], path: Path, model: str, config: GPT2Config) -> str:
    """'; the file fits model=NAME' where the shapes are those of a known size other than `model`.

    Else the number of tokens that it fits, if `config` has another one; or nothing.
    """
    try:
        told = shapes_tell(tensors, path)
        name = size_like(GPT2Config(n_head=1, **told), but_for=("n_head",))
    except UserError:
        return ""
    if name not in (None, model):
        return f"; the file fits model={name}"
    is_other = told["vocab_size"] != config.vocab_size
    return f"; the file fits model.vocab_size={told['vocab_size']}" if is_other else ""
