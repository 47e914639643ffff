"""Names and layouts: from files (Hugging Face's Conv1D, [in, out]) to the model (nn.Linear, [out, in]), and back."""

import re
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.checkpoints.architecture import infer_config
from gpt2x.checkpoints.sizes import size_like
from gpt2x.errors import UserError
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import shown

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_CONV1D = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")
_BUFFER = re.compile(r"^transformer\.h\.\d+\.attn\.(bias|masked_bias)$")


def dtype_name(dtype: torch.dtype) -> str:
    """The name without its module: `float16` for torch.float16."""
    return str(dtype).removeprefix("torch.")


def is_conv1d(name: str) -> bool:
    """Whether Hugging Face stores this weight as [in, out]."""
    return bool(_CONV1D.search(name))


def full_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under Hugging Face's full names, without the causal-mask buffers of old files."""
    named = {
        name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": tensor
        for name, tensor in tensors.items()
    }
    return {name: tensor for name, tensor in named.items() if not _BUFFER.match(name)}


def to_model(tensors: dict[str, Tensor], model: GPT2, path: Path, asked: str) -> dict[str, Tensor]:
    """Full-named tensors as the model's state dict without the tied head: views, with Conv1D matrices transposed.

    `asked` is what messages call the model. Raises UserError, naming the tensor, where one is missing, unexpected, of
    another shape than in the model (with the known size that would fit), or not finite, and where the head is not
    tied to wte.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    where = f"{shown(path)}:"
    state: dict[str, Tensor] = {}
    # Shapes come first, in the model's order, because they tell most about what went wrong.
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
    # torch.save stores a tied head and wte once, so that they are at the same address.
    tied = head is not None and head.data_ptr() == wte.data_ptr() and head.shape == wte.shape
    for name, tensor in tensors.items():
        if name != "lm_head.weight" or not tied:
            _check_finite(name, tensor, where)
        if name != "lm_head.weight":
            state[name] = tensor.t() if is_conv1d(name) else tensor
    if head is not None and not tied and not torch.equal(head, wte):
        raise UserError(f"{where} lm_head.weight differs from transformer.wte.weight; GPT-2's head is tied to wte")
    return state


def to_file(model: GPT2) -> dict[str, Tensor]:
    """The model's weights in Hugging Face's names and layout: views, without the tied head."""
    return {
        name: tensor.t() if is_conv1d(name) else tensor
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }


def _check_finite(name: str, tensor: Tensor, where: str) -> None:
    if tensor.dtype not in _DTYPES:
        raise UserError(f"{where} {name} holds {dtype_name(tensor.dtype)}, not floats of 16 to 64 bits")
    # The sum takes one pass and no temporary memory; as it may overflow without an Inf inside, a second test follows.
    if not tensor.sum().isfinite() and not tensor.isfinite().all():
        raise UserError(f"{where} {name} holds {int((~tensor.isfinite()).sum())} NaN or Inf")


def _fitting(tensors: dict[str, Tensor]) -> str:
    """'; the file fits model=NAME' where the shapes are those of a known size, else nothing."""
    try:
        config = infer_config(tensors, 1, Path())
    except UserError:
        return ""
    name = size_like(config, but_for=("n_head",))
    return f"; the file fits model={name}" if name else ""
