"""Between the names and layout of files (Hugging Face's Conv1D, [in, out]) and the model's (nn.Linear, [out, in])."""

import re
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.checkpoints.sizes import known_sizes, size_like
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import shown

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_CONV1D = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")
_BUFFER = re.compile(r"^transformer\.h\.\d+\.attn\.(bias|masked_bias)$")
_LAYER = re.compile(r"^transformer\.h\.(\d+)\.")


def dtype_name(dtype: torch.dtype) -> str:
    """`float16` of torch.float16."""
    return str(dtype).removeprefix("torch.")


def is_conv1d(name: str) -> bool:
    """Whether Hugging Face keeps this weight as [in, out]."""
    return bool(_CONV1D.search(name))


def full_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under Hugging Face's full names, without the causal-mask buffers of old files."""
    named = {
        name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": tensor
        for name, tensor in tensors.items()
    }
    return {name: tensor for name, tensor in named.items() if not _BUFFER.match(name)}


def infer_config(tensors: dict[str, Tensor], n_head: int | None, path: Path) -> GPT2Config:
    """The architecture that full-named tensors have. n_head leaves no trace: given, or a known size's.

    Raises UserError if they have none, or if n_head is unknown or does not divide n_embd.
    """
    for name in ("transformer.wte.weight", "transformer.wpe.weight"):
        if name not in tensors or tensors[name].ndim != 2:
            raise UserError(f"{shown(path)}: not a GPT-2 checkpoint: it has no matrix {name}")
    vocab_size, n_embd = tensors["transformer.wte.weight"].shape
    shape = {
        "vocab_size": vocab_size,
        "n_positions": tensors["transformer.wpe.weight"].shape[0],
        "n_embd": n_embd,
        "n_layer": 1 + max((int(m[1]) for m in map(_LAYER.match, tensors) if m), default=0),
    }
    if n_head is None:
        size = size_like(GPT2Config(n_head=1, **shape), but_for=("n_head",))
        if size is None:
            raise UserError(
                f"{shown(path)}: a state dict does not tell the number of heads: add model.n_head=N, "
                "or put config.json beside the file"
            )
        n_head = known_sizes()[size].n_head
    if n_embd % n_head:
        raise UserError(f"model.n_head={n_head}: does not divide the n_embd {n_embd} of {shown(path)}")
    return GPT2Config(n_head=n_head, **shape)


def to_model(tensors: dict[str, Tensor], model: GPT2, path: Path, asked: str) -> dict[str, Tensor]:
    """Full-named tensors as the model's state dict, less the tied head: views, Conv1D matrices transposed.

    Raises UserError naming the tensor if one is missing, unexpected, of another shape than the model
    wants (then also the model size that would fit), not a number, or if the head is not tied.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    where = f"{shown(path)}:"
    state: dict[str, Tensor] = {}
    # Shapes first, in the model's order: they tell most about what went wrong.
    for name, shape in expected.items():
        wanted = shape[::-1] if is_conv1d(name) else shape
        if name in tensors and tensors[name].shape != wanted:
            got = list(tensors[name].shape)
            raise UserError(f"{where} {name} has shape {got}, {asked} needs {list(wanted)}{_fitting(tensors)}")
    missing = sorted(set(expected) - set(tensors) - {"lm_head.weight"})
    unexpected = sorted(set(tensors) - set(expected))
    for problem, names in (("is missing", missing), ("is unexpected", unexpected)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise UserError(f"{where} {names[0]} {problem}{more} for {asked}{_fitting(tensors)}")
    wte, head = tensors["transformer.wte.weight"], tensors.get("lm_head.weight")
    tied = head is not None and head.data_ptr() == wte.data_ptr() and head.shape == wte.shape  # as torch.save keeps it
    for name, tensor in tensors.items():
        if name != "lm_head.weight" or not tied:
            _check_finite(name, tensor, where)
        if name != "lm_head.weight":
            state[name] = tensor.t() if is_conv1d(name) else tensor
    if head is not None and not tied and not torch.equal(head, wte):
        raise UserError(f"{where} lm_head.weight differs from transformer.wte.weight; GPT-2's head is tied to wte")
    return state


def to_file(model: GPT2) -> dict[str, Tensor]:
    """The model's weights in Hugging Face's names and layout: views, the tied head left out."""
    return {
        name: tensor.t() if is_conv1d(name) else tensor
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }


def _check_finite(name: str, tensor: Tensor, where: str) -> None:
    if tensor.dtype not in _DTYPES:
        raise UserError(f"{where} {name} holds {dtype_name(tensor.dtype)}, not floats of 16 to 64 bits")
    # One pass without a temporary; a sum that overflows without an Inf inside is told apart by the second test.
    if not tensor.sum().isfinite() and not tensor.isfinite().all():
        raise UserError(f"{where} {name} holds {int((~tensor.isfinite()).sum())} NaN or Inf")


def _fitting(tensors: dict[str, Tensor]) -> str:
    """'; the file fits MODEL' where its shapes are a known size's."""
    try:
        config = infer_config(tensors, 1, Path())
    except UserError:
        return ""
    name = size_like(config, but_for=("n_head",))
    return f"; the file fits model={name}" if name else ""
