"""gpt2x's own reader, with which all formats but ONNX are read back."""

from dataclasses import asdict
from pathlib import Path

import torch

from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.checkpoints.names import to_file
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.parity.conversion.probe import Probe, Reading, logits_of
from gpt2x.parity.measures import RELATIVE_TOLERANCE


class Gpt2x:
    """What `weights.path=FILE` loads."""

    name = package = "gpt2x"
    independent = False
    formats = ("hf", "pt", "nanogpt", "llmc", "gguf")

    def tolerance(self, dtype: str, computed: torch.dtype) -> float:
        return RELATIVE_TOLERANCE[computed]

    def read(self, folder: Path, weights: str, probe: Probe) -> Reading:
        source = probe.source.model
        settings = WeightsConfig("local", str(folder / weights))
        dtype = source.lm_head.weight.dtype
        found = load_checkpoint(ModelConfig("auto"), settings, dtype, torch.device("cpu"), shared=False)
        theirs, ours = asdict(found.model.config), asdict(source.config)
        differing = [name for name in ours if name != "dropout" and theirs[name] != ours[name]]
        if differing:
            what = ", ".join(f"{name} {theirs[name]} instead of {ours[name]}" for name in differing)
            raise UserError(f"another architecture: {what}")
        tensors = to_file(found.model)
        return Reading(
            tensors=tensors,
            logits=logits_of(tensors, probe),
            same_ids=probe.same_ids(found.tokenizer),
            same_merges=probe.same_merges(found.tokenizer),
        )
