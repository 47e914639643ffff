"""What the oracle answered, as data: all that the stages compare a subject with, live or from a file."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpt2x.model.config import GPT2Config
from gpt2x.parity.subject.names import portion_of, portions_of


@dataclass
class Generation:
    """One prompt, continued greedily by the oracle in the dtype asked for."""

    prompt: str
    prompt_ids: list[int]
    ids: list[int]
    """The new tokens."""
    top2_margins: list[float]
    """For each new token, the difference between the two largest logits that it was chosen from."""


@dataclass
class Facts:
    """The texts and numbers of a record: the JSON half of its file."""

    transformers: str
    """The version of the package."""
    architecture: dict[str, Any]
    """As architecture_of() returns it."""
    dtype: str
    """The dtype asked for."""
    exact: str
    """The dtype of traces, loss and gradients: float64, or `dtype` if float64 does not fit in memory."""
    prompt: str
    ids: list[int]
    n_parameters: int
    max_new_tokens: int
    texts: dict[str, tuple[list[int], str]]
    """Site -> the ids of its text, and the text that they decode to."""
    generations: list[Generation] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    """Names of the modules, in the order in which they finish."""
    site_errors: dict[str, float] = field(default_factory=dict)
    """Site -> RMS difference of its output in `dtype` from that in float64, on the same input."""
    loss: float | None = None
    gradient_norms: dict[str, float] = field(default_factory=dict)
    """Parameter -> L2 norm of its gradient."""
    digests: dict[str, str] = field(default_factory=dict)
    """Parameter -> sha256 of its bytes in `dtype`."""


@dataclass
class Record:
    """The oracle's answers. Inputs, outputs, logits and gradients are in `facts.exact`, on the CPU."""

    facts: Facts
    parameters: dict[str, Tensor]
    """By Hugging Face's names less `transformer.`, in its layout and in `facts.dtype`."""
    logits: Tensor
    """Logits of the prompt, [T, V]."""
    logits_in_dtype: Tensor
    """The same as computed in `facts.dtype`; stored in float64, which holds them exactly."""
    inputs: dict[str, Tensor]
    """Site -> the input of the module."""
    outputs: dict[str, Tensor]
    """Site -> the output of the module."""
    gradients: dict[str, Tensor]
    """Parameter -> entries of its gradient, as losses.sample() picks them."""
    context_losses: Tensor
    """Cross-entropy in nats of each token of a text, as losses.context_losses() returns it; may be empty."""

    @property
    def exact(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.facts.exact)
        return dtype

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.facts.dtype)
        return dtype

    @property
    def shapes(self) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in self.parameters.items()}

    def with_portions(self) -> "Record":
        """Adds the sites c_attn.q, .k and .v, and their heads, for subjects with such projections; returns itself."""
        heads = int(self.facts.architecture["n_head"])
        outputs: dict[str, Tensor] = {}
        for site, whole in self.outputs.items():
            if site.endswith("c_attn"):
                for part in portions_of(site, heads):
                    self.inputs[part], outputs[part] = self.inputs[site], portion_of(part, whole)
                    self.facts.site_errors[part] = self.facts.site_errors.get(site, 0.0)
            outputs[site] = whole
        self.outputs = outputs
        return self


def architecture_of(config: GPT2Config) -> dict[str, Any]:
    """The numbers that fix the function in eval mode, under Hugging Face's names: all but dropout."""
    return {key: value for key, value in asdict(config).items() if key != "dropout"}
