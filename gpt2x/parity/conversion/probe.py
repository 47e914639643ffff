"""What is asked of each reader, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from gpt2x.checkpoints.load import Checkpoint, model_of
from gpt2x.memory import available_memory
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.texts import TEXTS

_POSITIONS = 8


@dataclass(frozen=True)
class Probe:
    """The same questions to every reader."""

    source: Checkpoint
    """What was written."""
    ids: list[int]
    """The tokens for which logits are asked."""
    texts: dict[str, list[int]]
    """Texts, and the ids that the source's tokenizer gives."""
    dtype: torch.dtype
    """In which the logits are computed, where a reader leaves the choice: float64, if that fits in memory."""


@dataclass(frozen=True)
class Reading:
    """What a reader found. None is what it does not show."""

    tensors: Mapping[str, Tensor] | None = None
    """In Hugging Face's names and layout, without the tied head."""
    logits: Tensor | None = None
    """[T, V]"""
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
    n_ids = min(_POSITIONS, config.n_positions)
    return Probe(
        source=source,
        ids=torch.randint(tokenizer.vocab_size, (n_ids,), generator=generator).tolist(),
        texts={text: tokenizer.encode(text) for text in texts},
        dtype=torch.float64 if fits else torch.float32,
    )


@torch.inference_mode()
def logits_of(model: GPT2, probe: Probe) -> Tensor:
    """[T, V], computed by gpt2x in the dtype of the probe."""
    state = {name: tensor.to(probe.dtype) for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    logits: Tensor = model_of(state, model.config)(torch.tensor([probe.ids]))[0]
    return logits
