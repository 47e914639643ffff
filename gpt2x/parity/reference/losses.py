"""The losses that both models compute, and the entries of gradients that are kept. Units: nats."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

_SAMPLE = 4096  # entries


class Answering(Protocol):
    """A model that answers with logits."""

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shapes of a GPT-2's tensors, by Hugging Face's names less `transformer.`."""

    def logits(self, input_ids: Tensor) -> Tensor:
        """input_ids [B, T] -> logits [B, T, V]."""


def loss_of(subject: Answering, ids: list[int], device: torch.device | None = None) -> Tensor:
    """Mean cross-entropy per token of a batch, a scalar: the prompt, and the prompt backwards.

    The target of each token is the next one; that of the last is the first.
    """
    input_ids = torch.tensor([ids, ids[::-1]], device=device)  # [2, T]
    return F.cross_entropy(subject.logits(input_ids).flatten(0, 1), input_ids.roll(-1, dims=1).flatten())


@contextmanager
def one_thread() -> Iterator[None]:
    """For gradients: torch sums up those of a layer norm in as many parts as there are threads.

    What is then compared is rounding, which must not depend on the number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def context_losses(subject: Answering, n: int, device: torch.device | None = None) -> Tensor:
    """Cross-entropy of each of the n tokens of a fixed random text, [n], on the CPU.

    The text reaches positions that the prompt is too short for.
    """
    V = subject.shapes["wte.weight"][0]
    ids = torch.randint(V, (1, n), generator=torch.Generator().manual_seed(0)).to(device)
    return F.cross_entropy(subject.logits(ids)[0], ids[0].roll(-1), reduction="none").cpu()


def sample(gradient: Tensor) -> Tensor:
    """At least 4096 entries of a gradient, evenly spaced (all of a smaller one), [n], on the CPU."""
    flat = gradient.flatten()
    return flat[:: max(1, flat.numel() // _SAMPLE)].cpu().clone()
