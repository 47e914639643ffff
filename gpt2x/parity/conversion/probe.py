"""What is asked of each reader, and what it answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from gpt2x.checkpoints.load import Checkpoint, model_of
from gpt2x.checkpoints.names import is_conv1d
from gpt2x.memory import available_memory
from gpt2x.parity.texts import TEXTS
from gpt2x.tokenizer import Tokenizer

_SIZES = ((1, 8), (3, 2), (1, 1))  # [B, T]: a graph may be right for one of them only


@dataclass(frozen=True)
class Probe:
    """The same questions to every reader."""

    source: Checkpoint
    """What was written."""
    batches: list[Tensor]
    """The tokens [B, T] for which logits are asked, of several sizes."""
    texts: dict[str, list[int]]
    """Texts, and the ids that the source's tokenizer gives."""
    dtype: torch.dtype
    """In which the logits are computed, where a reader leaves the choice: float64, if that fits in memory."""

    def same_ids(self, tokenizer: Tokenizer) -> list[bool]:
        """Per text, whether a tokenizer gives the ids of the source's."""
        return [tokenizer.encode(text) == ids for text, ids in self.texts.items()]

    def same_merges(self, tokenizer: Tokenizer) -> bool:
        """Whether a tokenizer has the vocabulary and the merges of the source's: few texts depend on two merges."""
        return _definition(tokenizer) == _definition(self.source.tokenizer)


@dataclass(frozen=True)
class Reading:
    """What a reader found. None is what it does not show."""

    tensors: Mapping[str, Tensor] | None = None
    """In Hugging Face's names and layout, without the tied head."""
    logits: Tensor | None = None
    """[N, V], for the N tokens of all batches."""
    are_logprobs: bool = False
    same_ids: list[bool] | None = None
    """Per text that the reader could encode, whether the ids are those of the source."""
    same_merges: bool = True
    """Whether the vocabulary and the merges are those of the source, in their order, if the reader shows them."""


class Reader(Protocol):
    """A program that reads files of some formats."""

    @property
    def name(self) -> str: ...

    @property
    def package(self) -> str: ...

    @property
    def independent(self) -> bool:
        """Whether it is another program than gpt2x."""

    @property
    def formats(self) -> tuple[str, ...]:
        """The values of task.format that it reads."""

    def tolerance(self, dtype: str, computed: torch.dtype) -> float:
        """The largest relative difference of its logits from gpt2x's, with the same weights, stored in `dtype`."""

    def read(self, folder: Path, weights: str, probe: Probe) -> Reading:
        """Reads what was written: the folder, in which the file `weights` is.

        Raises ImportError if its package is not installed.
        """


def make_probe(source: Checkpoint) -> Probe:
    """Random tokens, texts that tokenizers often get wrong, and the text of the whole vocabulary."""
    config, tokenizer = source.model.config, source.tokenizer
    texts = (*TEXTS.values(), tokenizer.decode(range(tokenizer.vocab_size)))
    n_parameters = sum(parameter.numel() for parameter in source.model.parameters())
    fits = available_memory() > 3 * 8 * n_parameters  # two models in float64, and one that a reader is loading
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randint(tokenizer.vocab_size, (B, min(T, config.n_positions)), generator=generator) for B, T in _SIZES
    ]
    return Probe(
        source=source,
        batches=batches,
        texts={text: tokenizer.encode(text) for text in texts},
        dtype=torch.float64 if fits else torch.float32,
    )


@torch.inference_mode()
def logits_of(tensors: Mapping[str, Tensor], probe: Probe) -> Tensor:
    """[N, V], computed by gpt2x in the dtype of the probe, with tensors in Hugging Face's names and layout."""
    # In one order in memory, as products with a transposed matrix are rounded in another order.
    state = {
        name: (tensor.t() if is_conv1d(name) else tensor).to(probe.dtype, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    model = model_of(state, probe.source.model.config)
    return torch.cat([model(ids).flatten(0, 1) for ids in probe.batches])


def _definition(tokenizer: Tokenizer) -> tuple[Any, Any]:
    model = json.loads(tokenizer.backend.to_str())["model"]
    return model["vocab"], model.get("merges")
