"""llama.cpp (https://github.com/ggml-org/llama.cpp), driven by xllamacpp: its server in this process, without HTTP.

int8 is llama.cpp's q8_0: 8 bits per weight and one scale in float16 per 32 weights; activations are rounded likewise.
"""

import json
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import gguf  # noqa: F401  (convert needs it: without it, the engine is not installed)

from gpt2x.llamacpp import start_server
from gpt2x.model.config import GPT2Config

_CELLS = 256  # llama.cpp's caches grow in units of as many tokens


def dtypes() -> set[str]:
    """They do not depend on the CPU."""
    return {"float32", "float16", "int8"}


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
        self.server = start_server(self.file, slots, context, self.threads, exact=self.dtype == "float32")


def convert(directory: Path, dtype: str) -> None:
    """Writes the model as GGUF: matrices and token embeddings in `dtype`, all other tensors in float32.

    The text of each token in the file is its id, so that the server, which answers with text, answers with ids. The
    vocabulary is of the type of RWKV's, which has no end-of-text token: the server would end a text there, and its
    setting ignore_eos would forbid the token. Both leave the computation of the model as it is.
    """
    from safetensors import safe_open

    from gpt2x.checkpoints.exporting.gguf import Vocabulary, write_gguf

    stated = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config = GPT2Config(**{each.name: stated[each.name] for each in fields(GPT2Config) if each.name in stated})
    vocabulary = Vocabulary("rwkv", [f"{id} " for id in range(config.vocab_size)])
    with safe_open(directory / "model.safetensors", "np") as file:
        tensors = {name: partial(file.get_tensor, name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
        write_gguf(_file(directory, dtype), config, tensors, dtype, vocabulary)


def _file(directory: Path, dtype: str) -> Path:
    return directory / f"{dtype}.gguf"
