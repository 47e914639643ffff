"""LoRA adapters of peft (https://huggingface.co/docs/peft), merged with their base model."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2x.checkpoints.contents import Contents, Layout
from gpt2x.checkpoints.formats.directory import read_files
from gpt2x.checkpoints.formats.files import read_file
from gpt2x.checkpoints.layout import layouts
from gpt2x.checkpoints.locate import ADAPTER_CONFIG, adapter_file, base_of, read_json, weight_files
from gpt2x.checkpoints.names import hf_name, is_conv1d, named
from gpt2x.checkpoints.rows import Step
from gpt2x.errors import UserError
from gpt2x.paths import shown
from gpt2x.visible import visible

_FACTOR = re.compile(r"(.+)\.lora_(A|B)(?:\.default)?\.weight")
# Settings of peft that change the function in ways that are not computed here, and the values that do not.
_PLAIN = {
    "use_dora": (False,),
    "bias": ("none",),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "lora_bias": (False,),
    "layer_replication": (None, []),
    "trainable_token_indices": (None,),
}


class Lora:
    """Directories with adapter_config.json."""

    name = "LoRA adapter"

    def matches(self, path: Path) -> bool:
        return base_of(path) is not None

    def read(self, path: Path) -> Contents:
        base = base_of(path)
        assert base is not None  # matches says so
        file = path / ADAPTER_CONFIG
        scale = _scale(read_json(file), file)
        contents = read_files(weight_files(base))
        factors = _factors(read_file(adapter_file(path)), path)
        found = named(contents.tensors, base)
        of_matrix = layouts(found.tensors, contents.layout, None, base)
        tensors, steps = dict(contents.tensors), dict(contents.steps)
        for name, (a, b) in factors.items():
            source = found.sources.get(name)
            if source is None:
                raise UserError(f"{shown(path)}: {shown(base)} has no {name}, which the adapter changes")
            tensors[source] = _merged(tensors[source], a, b, scale, of_matrix[name], name, path)
            steps[source] = (*steps.get(source, ()), Step.MERGE)
        note = f"an adapter of {len(factors)} matrices, merged with {shown(base)}"
        return replace(contents, format=self.name, tensors=tensors, steps=steps, notes=(*contents.notes, note))


def _scale(config: dict[str, Any], file: Path) -> float:
    """By what the product of the factors is multiplied. Raises UserError for what is no plain LoRA."""
    if config.get("peft_type") != "LORA":
        raise UserError(f"{shown(file)}: peft_type is {str(config.get('peft_type'))[:40]!r}; only LORA is merged")
    for key, plain in _PLAIN.items():
        if config.get(key, plain[0]) not in plain:
            raise UserError(f"{shown(file)}: {key}={str(config[key])[:40]!r} is not supported; merge it with peft")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, (int, float)):
        raise UserError(f"{shown(file)}: r={str(rank)[:20]!r} and lora_alpha={str(alpha)[:20]!r} give no scale")
    return float(alpha) / (rank**0.5 if config.get("use_rslora") is True else rank)


def _factors(adapter: Contents, path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Full name of each matrix -> the factors A [rank, in] and B [out, rank] of its change."""
    halves: dict[str, dict[str, Tensor]] = {}
    for source, tensor in adapter.tensors.items():
        found = _FACTOR.fullmatch(source)
        name = hf_name(f"{found[1]}.weight") if found else None
        if found is None or name is None or not is_conv1d(name):
            raise UserError(f"{shown(path)}: {visible(source)[:100]} is unexpected in an adapter of GPT-2's matrices")
        halves.setdefault(name, {})[found[2]] = tensor
    alone = next((name for name, each in halves.items() if len(each) < 2), None)
    if alone is not None or not halves:
        raise UserError(f"{shown(path)}: one of lora_A and lora_B of {alone or 'every matrix'} is missing")
    return {name: (each["A"], each["B"]) for name, each in halves.items()}


def _merged(base: Tensor, a: Tensor, b: Tensor, scale: float, layout: Layout, name: str, path: Path) -> Tensor:
    """The matrix with the change added, in the dtype and layout of the base."""
    n_out, n_in = base.shape[::-1] if layout is Layout.CONV1D else base.shape
    if a.ndim != 2 or b.ndim != 2 or a.shape != (b.shape[1], n_in) or b.shape[0] != n_out:
        raise UserError(
            f"{shown(path)}: {list(b.shape)} times {list(a.shape)} is no change of {name}, {list(base.shape)}"
        )
    change = (b.float() @ a.float()) * scale
    return (base.float() + (change.t() if layout is Layout.CONV1D else change)).to(base.dtype)
