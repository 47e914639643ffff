"""Names: from those of every format to Hugging Face's; and from the model back to Hugging Face's layout."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.errors import UserError
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import shown
from gpt2x.visible import visible

HEAD, WTE = "lm_head.weight", "transformer.wte.weight"
_CONV1D = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")
# OpenAI's variables (model/h0/attn/c_attn/w), and Keras's (.../h_._0/attn/c_attn/weight:0), with dots for slashes.
_LAYER = re.compile(r"(?<![^.])h(?:_\.)?_?(\d{1,4})\.")
_IN_LAYER = re.compile(r"(?:.*\.)?h\.(\d{1,4})\.(ln_1|ln_2|attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.(\w+)")
_OUTSIDE = re.compile(r"(?:.*\.)?(wte|wpe|ln_f|lm_head)\.(\w+)")
# What OpenAI, Flax and Keras call `weight` and `bias`, per kind of module.
_NORM = {"g": "weight", "scale": "weight", "gamma": "weight", "b": "bias", "beta": "bias"}
_MATRIX = {"w": "weight", "kernel": "weight", "b": "bias"}
_EMBEDDING = {"embedding": "weight", "embeddings": "weight"}
_TABLE = re.compile(r"(?:.*\.)?(wte|wpe)")  # OpenAI's embeddings
_BUFFER = re.compile(r"(?:.*\.)?h\.\d{1,4}\.attn\.(bias|masked_bias)")
# https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py
_GGUF = {
    "token_embd": "wte",
    "position_embd": "wpe",
    "output_norm": "ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_GGUF_NAME = re.compile(r"(?:blk\.(\d{1,4})\.)?(\w+)\.(weight|bias)")


@dataclass(frozen=True)
class Named:
    """The tensors of a file under Hugging Face's names."""

    tensors: dict[str, Tensor]
    """Hugging Face's name -> the tensor, in the layout of the file."""
    sources: dict[str, str]
    """Hugging Face's name -> the name in the file."""
    unknown: list[str]
    """Names in the file of tensors that GPT-2 does not have. What has none of these names is a buffer."""


def dtype_name(dtype: torch.dtype) -> str:
    """The name without its module: `float16` for torch.float16."""
    return str(dtype).removeprefix("torch.")


def is_conv1d(name: str) -> bool:
    """Whether Hugging Face stores this weight as [in, out]."""
    return bool(_CONV1D.search(name))


def hf_name(source: str) -> str | None:
    """Hugging Face's full name (`transformer.h.0.ln_1.weight`) of a parameter of GPT-2; None for any other tensor.

    Prefixes are left out, however they nest: `_orig_mod.module.transformer.`, `model/`, ...
    """
    gguf = _GGUF_NAME.fullmatch(source)
    if gguf and gguf[2] in _GGUF:
        source = f"h.{gguf[1]}.{_GGUF[gguf[2]]}.{gguf[3]}" if gguf[1] else f"{_GGUF[gguf[2]]}.{gguf[3]}"
    path = _LAYER.sub(r"h.\1.", source.replace("/", ".").removesuffix(":0"))
    table = _TABLE.fullmatch(path)
    if table:
        return f"transformer.{table[1]}.weight"
    inside, outside = _IN_LAYER.fullmatch(path), _OUTSIDE.fullmatch(path)
    if inside:
        module, kind = f"transformer.h.{int(inside[1])}.{inside[2]}", _NORM if inside[2].startswith("ln_") else _MATRIX
        return _parameter(module, inside[3], kind)
    if outside:
        module = outside[1] if outside[1] == "lm_head" else f"transformer.{outside[1]}"
        return _parameter(module, outside[2], _NORM if outside[1] == "ln_f" else _EMBEDDING)
    return None


def _parameter(module: str, leaf: str, others: Mapping[str, str]) -> str | None:
    leaf = others.get(leaf, leaf)
    return f"{module}.{leaf}" if leaf in ("weight", "bias") else None


def named(tensors: Mapping[str, Tensor], path: Path) -> Named:
    """The tensors of a file under Hugging Face's names. Raises UserError where two of them have the same name."""
    found = Named({}, {}, [])
    for source, tensor in tensors.items():
        name = hf_name(source)
        if name is None:
            if not _BUFFER.fullmatch(source) or tensor.ndim not in (0, 4):
                found.unknown.append(source)
            continue
        if name in found.tensors:
            both = " and ".join(visible(each)[:80] for each in (found.sources[name], source))
            raise UserError(f"{shown(path)}: {both} are both {name}: it holds more than one model")
        found.tensors[name], found.sources[name] = tensor, source
    return found


def to_file(model: GPT2) -> dict[str, Tensor]:
    """The model's weights in Hugging Face's names and layout: views, without the tied head."""
    return {
        name: tensor.t() if is_conv1d(name) else tensor for name, tensor in model.state_dict().items() if name != HEAD
    }
