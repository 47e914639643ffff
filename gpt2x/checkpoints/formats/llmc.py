"""llm.c's model files (https://github.com/karpathy/llm.c, write_model in train_gpt2.py): a header, and parameters."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from gpt2x.checkpoints.contents import Contents, Layout, stated
from gpt2x.errors import UserError
from gpt2x.paths import shown

_MAGIC = 20240326
_HEADER = 1024  # bytes: 256 integers of 32 bits
_DTYPES = {3: torch.float32, 5: torch.bfloat16}
"""Version -> dtype of all parameters. Both have a padded vocabulary."""
_FIELDS = ("block_size", "vocab_size", "n_layer", "n_head", "n_embd", "padded_vocab_size")


class LlmC:
    """Files that begin with llm.c's number, whatever their name."""

    name = "llm.c"

    def matches(self, path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(4) == struct.pack("<i", _MAGIC)

    def read(self, path: Path) -> Contents:
        with path.open("rb") as file:
            header = file.read(_HEADER)
        if len(header) < _HEADER:
            raise UserError(f"{shown(path)}: truncated, in the header of llm.c")
        _, version, *values = struct.unpack("<8i", header[:32])
        if version not in _DTYPES:
            raise UserError(
                f"{shown(path)}: version {version} of llm.c's files; only 3 (float32) and 5 (bfloat16) are read"
            )
        said = dict(zip(_FIELDS, values, strict=True))
        names = {"n_positions": "block_size"} | {name: name for name in _FIELDS[1:5]}
        sizes = stated("the header", said, names, shown(path))
        rows, C, L = said["padded_vocab_size"], said["n_embd"], said["n_layer"]
        shapes = list(_shapes(rows, said["block_size"], C, L))
        dtype = _DTYPES[version]
        n_bytes = _HEADER + dtype.itemsize * sum(_numel(shape) for _, shape in shapes)
        if rows < said["vocab_size"] or n_bytes != path.stat().st_size:
            actual = path.stat().st_size
            raise UserError(f"{shown(path)}: truncated, or not llm.c's: {actual} bytes, its header asks for {n_bytes}")
        values_of = torch.from_file(str(path), shared=False, size=n_bytes, dtype=torch.uint8)[_HEADER:].view(dtype)
        tensors, start = {}, 0
        for name, shape in shapes:
            tensors[name] = values_of[start : start + _numel(shape)].view(shape)
            start += _numel(shape)
        return Contents(self.name, tensors, Layout.LINEAR, replace(sizes, padded_vocab_size=rows))


def _shapes(rows: int, positions: int, C: int, L: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The parameters in the order of the file: each kind of parameter for all layers, before the next kind."""
    yield "transformer.wte.weight", (rows, C)
    yield "transformer.wpe.weight", (positions, C)
    modules = {
        "ln_1": (C,),
        "attn.c_attn": (3 * C, C),
        "attn.c_proj": (C, C),
        "ln_2": (C,),
        "mlp.c_fc": (4 * C, C),
        "mlp.c_proj": (C, 4 * C),
    }
    for module, shape in modules.items():
        for leaf, own in (("weight", shape), ("bias", shape[:1])):
            yield from ((f"transformer.h.{layer}.{module}.{leaf}", own) for layer in range(L))
    yield "transformer.ln_f.weight", (C,)
    yield "transformer.ln_f.bias", (C,)


def _numel(shape: tuple[int, ...]) -> int:
    return shape[0] * shape[1] if len(shape) == 2 else shape[0]
