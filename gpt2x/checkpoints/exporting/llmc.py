"""llm.c's model.bin and gpt2_tokenizer.bin (https://github.com/karpathy/llm.c, train_gpt2.py).

A model file is a header of 256 int32 numbers, and then all tensors one after the other, those of one kind for all
layers together, with matrices as in nn.Linear, [out, in]. The rows of wte are padded with zeros to a multiple of 128.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.checkpoints.exporting.hf import write_tokenizer
from gpt2x.checkpoints.exporting.nanogpt import check_epsilon
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import write_whole
from gpt2x.tokenizer import Tokenizer

_VERSIONS = {"float32": 3, "bfloat16": 5}
_MODEL, _TOKENIZER, _TOKENIZER_VERSION = 20240326, 20240328, 2
_ROWS = 128
_IN_LAYERS = (
    *("ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias"),
    *("ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
)


class LlmC:
    """model.bin of version 3 (float32) or 5 (bfloat16), gpt2_tokenizer.bin, and vocab.json and merges.txt."""

    name = "llmc"
    dtypes = tuple(_VERSIONS)
    weights = "model.bin"
    note = None

    def stored_dtype(self, tensor: str, dtype: str) -> str:
        return dtype

    def check(self, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        check_epsilon(model, self.name)
        lengths = set(map(len, _tokens(tokenizer)))
        if not lengths <= set(range(1, 256)):
            raise UserError(
                f"task.format=llmc: a token of {max(lengths - set(range(1, 256)))} bytes; "
                "in llm.c's tokenizer file, a token has 1 to 255 bytes"
            )
        if tokenizer.eos_id is None:
            raise UserError("task.format=llmc: the tokenizer has no <|endoftext|>, which llm.c's tokenizer file names")

    def write(self, folder: Path, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        write_tokenizer(folder, tokenizer)
        write_whole(folder / "gpt2_tokenizer.bin", lambda file: _write_tokens(file, tokenizer))
        write_whole(folder / self.weights, lambda file: _write_model(file, model, dtype))


def _write_model(file: Path, model: GPT2, dtype: str) -> None:
    config = model.config
    padded = -(-config.vocab_size // _ROWS) * _ROWS
    numbers = (config.n_positions, config.vocab_size, config.n_layer, config.n_head, config.n_embd, padded)
    with file.open("wb") as stream:
        stream.write(_header(_MODEL, _VERSIONS[dtype], *numbers))
        for tensor in _in_order(model.state_dict(), config, padded):
            stored = tensor.to("cpu", getattr(torch, dtype)).contiguous()
            stream.write(stored.view(torch.uint8).numpy().data)  # numpy has no bfloat16


def _in_order(state: dict[str, Tensor], config: GPT2Config, padded: int) -> Iterator[Tensor]:
    wte = state["transformer.wte.weight"]
    yield wte
    yield wte.new_zeros(padded - config.vocab_size, config.n_embd)
    yield state["transformer.wpe.weight"]
    for name in _IN_LAYERS:
        for layer in range(config.n_layer):
            yield state[f"transformer.h.{layer}.{name}"]
    yield state["transformer.ln_f.weight"]
    yield state["transformer.ln_f.bias"]


def _write_tokens(file: Path, tokenizer: Tokenizer) -> None:
    """The bytes of each token after their number; the file can decode text, but not encode it."""
    tokens = _tokens(tokenizer)
    assert tokenizer.eos_id is not None  # check refuses it
    with file.open("wb") as stream:
        stream.write(_header(_TOKENIZER, _TOKENIZER_VERSION, len(tokens), tokenizer.eos_id))
        for token in tokens:
            stream.write(struct.pack("<B", len(token)) + token)


def _tokens(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of each token, by id. In a byte-level vocabulary, one character stands for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]  # these bytes stand for themselves
    others = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
    tokens = [tokenizer.backend.id_to_token(id) or "" for id in range(tokenizer.vocab_size)]
    return [bytes(byte_of[c] for c in token) if set(token) <= set(byte_of) else token.encode() for token in tokens]


def _header(*numbers: int) -> bytes:
    return struct.pack("<256i", *numbers, *[0] * (256 - len(numbers)))
