"""GGUF files, which llama.cpp reads (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

Matrices and token embeddings are stored in the dtype asked for; int8 is q8_0: 8 bits per weight, and one scale in
float16 per 32 weights. All other tensors are float32, as llama.cpp's own converter stores them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2x.checkpoints.exporting.hf import write_tokenizer
from gpt2x.checkpoints.names import is_conv1d, to_file
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import write_whole
from gpt2x.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np

_KINDS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "Q8_0"}
_FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0"}
_BLOCK = 32


class Gguf:
    """model.gguf, which holds the tokenizer too; vocab.json and merges.txt lie beside it for other programs."""

    name = "gguf"
    dtypes = tuple(_KINDS)
    weights = "model.gguf"
    note = None

    def stored_dtype(self, tensor: str, dtype: str) -> str:
        return dtype if _is_matrix(tensor) else "float32"

    def check(self, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        try:
            import gguf  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"task.format=gguf: needs a package that is not installed ({error}): python -m pip install gguf"
            ) from None
        if "merges" not in _bpe(tokenizer):
            raise UserError(
                "task.format=gguf: the tokenizer is no byte-level BPE, and so none that llama.cpp's gpt2 is"
            )
        if dtype == "int8" and model.config.n_embd % _BLOCK:
            raise UserError(
                f"task.format=gguf dtype=int8: q8_0 has blocks of {_BLOCK} weights, and n_embd={model.config.n_embd} "
                f"is no multiple of {_BLOCK}; use dtype=float16"
            )

    def write(self, folder: Path, model: GPT2, tokenizer: Tokenizer, dtype: str) -> None:
        write_tokenizer(folder, tokenizer)
        tensors = {
            name: lambda tensor=tensor: tensor.to("cpu").float().numpy() for name, tensor in to_file(model).items()
        }
        vocabulary = _vocabulary(tokenizer, model.config.vocab_size)
        write_whole(folder / self.weights, lambda file: write_gguf(file, model.config, tensors, dtype, vocabulary))


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer as GGUF keeps it."""

    model: str
    """`gpt2` is byte-level BPE; llama.cpp knows other kinds."""
    tokens: list[str]
    merges: list[str] | None = None
    types: list[int] | None = None
    end_of_text: int | None = None


def write_gguf(
    file: Path,
    config: GPT2Config,
    tensors: Mapping[str, Callable[[], "np.ndarray[Any, Any]"]],
    dtype: str,
    vocabulary: Vocabulary,
) -> None:
    """Writes one file; one tensor at a time is in memory.

    `tensors` has, under Hugging Face's names, functions that return the values in float32, in Hugging Face's layout.
    """
    import gguf

    kinds = {name: gguf.GGMLQuantizationType[_KINDS[dtype] if _is_matrix(name) else "F32"] for name in tensors}
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GPT2])
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[_KINDS[dtype]]])
    _add_vocabulary(writer, vocabulary)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config.n_layer)
    for name, kind in kinds.items():
        target = names.get_name(name, (".weight", ".bias"))
        assert target is not None, name
        values = tensors[name]()
        shape = values.shape[::-1] if is_conv1d(name) else values.shape
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(target, shape, values.dtype, values.size // block * size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, kind in kinds.items():
        values = tensors[name]()
        writer.write_tensor_data(gguf.quants.quantize((values.T if is_conv1d(name) else values).copy(), kind))
    writer.close()


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.types is not None:
        writer.add_token_types(vocabulary.types)
    if vocabulary.merges is not None:
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges(vocabulary.merges)
        writer.add_add_bos_token(False)
    if vocabulary.end_of_text is not None:
        writer.add_bos_token_id(vocabulary.end_of_text)
        writer.add_eos_token_id(vocabulary.end_of_text)


def _vocabulary(tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    """One token per row of wte: rows without a token, as in a padded vocabulary, are marked as unused."""
    from gguf.constants import TokenType

    backend = tokenizer.backend
    found = [backend.id_to_token(id) for id in range(vocab_size)]
    special = {id for id, token in backend.get_added_tokens_decoder().items() if token.special}
    kinds = [
        TokenType.UNUSED if token is None else TokenType.CONTROL if id in special else TokenType.NORMAL
        for id, token in enumerate(found)
    ]
    return Vocabulary(
        model="gpt2",
        tokens=[f"[PAD{id}]" if token is None else token for id, token in enumerate(found)],
        merges=[" ".join(pair) for pair in _bpe(tokenizer)["merges"]],
        types=[int(kind) for kind in kinds],
        end_of_text=tokenizer.eos_id,
    )


def _bpe(tokenizer: Tokenizer) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(tokenizer.backend.to_str())["model"]
    return model


def _is_matrix(name: str) -> bool:
    """Whether a tensor is stored in the dtype asked for."""
    return name == "transformer.wte.weight" or is_conv1d(name)
