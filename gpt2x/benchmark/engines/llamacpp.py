"""llama.cpp (https://github.com/ggml-org/llama.cpp), driven by xllamacpp: its server in this process, without HTTP.

int8 is llama.cpp's q8_0: 8 bits per weight and one scale in float16 per 32 weights; activations are rounded likewise.
"""

import json
import signal
from pathlib import Path
from typing import Any

import gguf
import xllamacpp
from gguf import GGMLQuantizationType
from xllamacpp import ggml_type, llama_flash_attn_type

_WEIGHTS = {
    "float32": GGMLQuantizationType.F32,
    "float16": GGMLQuantizationType.F16,
    "int8": GGMLQuantizationType.Q8_0,
}


_CELLS = 256  # llama.cpp's caches grow in units of as many tokens


def dtypes() -> set[str]:
    """They do not depend on the CPU."""
    return set(_WEIGHTS)


class Engine:
    """xllamacpp.Server with one slot per row of the batch."""

    def __init__(self, directory: Path, dtype: str, threads: int) -> None:
        self.file, self.dtype, self.threads = _file(directory, dtype), dtype, threads
        self._start(1, _CELLS)
        self.generate([[0]], 1)  # a server that is freed before its first answer may wait for its own end for ever

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """The first call with another number of rows, or with longer texts, starts a new server for them."""
        context = len(prompts[0]) + new_tokens
        if self.slots != len(prompts) or self.context < context:
            self._start(len(prompts), -(-context // _CELLS) * _CELLS)
        answer = self.server.handle_completions(
            {
                "prompt": prompts,
                "max_tokens": new_tokens,
                "cache_prompt": False,  # otherwise the prompt of the round before would not be computed again
                "samplers": ["top_k"],
                "top_k": 1,
            }
        )
        if "choices" not in answer:
            raise RuntimeError(answer.get("message", answer))
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        return [[int(id) for id in choice["text"].split()] for choice in choices]

    def _start(self, slots: int, context: int) -> None:
        self.server: Any = None  # first frees the memory of the one before
        self.slots, self.context = slots, context
        params = xllamacpp.CommonParams()
        params.model.path = str(self.file)
        params.n_parallel, params.n_ctx = slots, slots * context
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self.threads
        params.n_gpu_layers = 0
        params.cache_ram_mib = 0  # keeps no copies of the caches of earlier prompts
        params.warmup = False
        params.verbosity = -1
        if self.dtype == "float32":  # the default is a cache in float16, and flash attention, which is slow in float32
            params.cache_type_k = params.cache_type_v = ggml_type.GGML_TYPE_F32
            params.flash_attn_type = llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.server = xllamacpp.Server(params)
        for number, handler in handlers.items():  # the server has replaced them by its own
            signal.signal(number, handler)


def convert(directory: Path, dtype: str) -> None:
    """Writes the model as GGUF: matrices and token embeddings in `dtype`, all other tensors in float32.

    The text of each token in the file is its id, so that the server, which answers with text, answers with ids. The
    vocabulary is of the type of RWKV's, which has no end-of-text token: the server would end a text there, and its
    setting ignore_eos would forbid the token. Both leave the computation of the model as it is.
    """
    from safetensors import safe_open

    from gpt2x.checkpoints.names import is_conv1d

    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(_file(directory, dtype), gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GPT2])
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list([f"{id} " for id in range(config["vocab_size"])])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config["n_layer"])
    with safe_open(directory / "model.safetensors", "np") as file:
        for name in file.keys():  # noqa: SIM118 (it is not a dict)
            tensor = file.get_tensor(name)
            is_matrix = name == "transformer.wte.weight" or is_conv1d(name)
            kind = _WEIGHTS[dtype] if is_matrix else GGMLQuantizationType.F32
            data = gguf.quants.quantize((tensor.T if is_conv1d(name) else tensor).copy(), kind)
            target = names.get_name(name, (".weight", ".bias"))
            assert target is not None, name
            writer.add_tensor(target, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _file(directory: Path, dtype: str) -> Path:
    return directory / f"{dtype}.gguf"
