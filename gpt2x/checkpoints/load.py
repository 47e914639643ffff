"""From a configuration to a model that is ready for inference, with its tokenizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.checkpoints.account import Account
from gpt2x.checkpoints.formats import read_contents
from gpt2x.checkpoints.locate import find_weights, small_files, weight_files
from gpt2x.checkpoints.resolve import Weights, resolve
from gpt2x.checkpoints.sizes import ARCHITECTURE, size_like
from gpt2x.checkpoints.tokenizers import TokenizerSource, find_tokenizer, read_tokenizer
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.memory import check_fits
from gpt2x.model import kernels
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels.capabilities import takes_int8
from gpt2x.paths import shown
from gpt2x.tokenizer import Tokenizer

_Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model, its tokenizer, and where they come from."""

    model: GPT2
    tokenizer: Tokenizer
    tokenizer_source: TokenizerSource
    name: str
    """The name of the model size, or 'custom'."""
    weights: str
    """The weights as the CSVs name them: a path, or 'random' with the seed."""
    dtype: str
    """The dtype that was asked for. With int8, the weights are float32."""
    path: Path | None
    """The file or directory that was read; None for random weights."""
    stamp: _Stamp
    """Path, modification time in ns and size of each file that was read; where they differ, the weights may too."""
    account: Account
    """What was done to each tensor."""


def load_checkpoint(
    model: ModelConfig,
    weights: WeightsConfig,
    dtype: torch.dtype | None,
    device: torch.device,
    shared: bool = True,
    measure: bool = False,
) -> Checkpoint:
    """Finds, reads and checks the weights. The last checkpoint loaded is kept, for the next job of a sweep.

    With shared=False the checkpoint is a new one, which its caller may change. With `measure`, its account has norms
    and checksums. With torch.int8, the weights are float32, and the products multiply copies in int8. Without a dtype,
    all values stay exact: they are float64 if a tensor of the file is, and else float32. Raises UserError for weights
    that are missing, damaged or do not fit the configuration, and for files that change meanwhile.
    """
    if dtype == torch.int8 and not takes_int8(device):
        raise UserError(f"dtype=int8: not on {device.type} with this torch; use device=cpu, or dtype=bfloat16")
    path = find_weights(model, weights)
    stamp = _stamp(path)
    key = (model, path, stamp, weights.seed, weights.tokenizer, weights.layout, dtype, device, measure)
    if shared and key in _loaded:
        return _loaded[key]
    _loaded.clear()  # before loading, so that there are never two models in memory
    checkpoint = _load(model, weights, path, stamp, dtype, device, measure)
    if _stamp(path) != stamp:
        raise UserError(
            f"{checkpoint.weights}: its files changed while they were read; start again when they are whole"
        )
    if dtype == torch.int8:
        kernels.quantize(checkpoint.model)
    if shared:
        _loaded[key] = checkpoint
    return checkpoint


def read_weights(model: ModelConfig, weights: WeightsConfig) -> tuple[Path, Weights]:
    """The path and the weights, with norms and checksums, and without a model. Raises UserError as load_checkpoint."""
    path = find_weights(model, weights)
    if path is None:
        raise UserError("weights=random: there is no file to read; name one with weights.path=FILE")
    return path, resolve(read_contents(path), model, weights.layout, path, measure=True)


def _stamp(path: Path | None) -> _Stamp:
    """What tells whether the files of a checkpoint have changed; empty for random weights."""
    files = [*weight_files(path), *small_files(path)] if path else []
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())


# The last checkpoint, under everything that it depends on; files that have changed since have another stamp.
_loaded: dict[tuple[object, ...], Checkpoint] = {}


def _load(
    asked: ModelConfig,
    weights: WeightsConfig,
    path: Path | None,
    stamp: _Stamp,
    dtype: torch.dtype | None,
    device: torch.device,
    measure: bool,
) -> Checkpoint:
    if path is None:
        dtype = dtype or torch.float32
        config, account = complete_config(asked), Account()
        label = f"random (seed {weights.seed})"
    else:
        found = resolve(read_contents(path), asked, weights.layout, path, measure)
        dtype = dtype or _exact(found.state.values())
        config, state, account = found.config, found.state, found.account.cast_to(_stored(dtype))
        del found
        label = shown(path)
    source = find_tokenizer(weights, path, config)
    tokenizer = read_tokenizer(source, path, config.vocab_size)
    model = empty_model(config)
    if path is None:
        n_parameters = sum(parameter.numel() for parameter in model.parameters())
        check_fits(4 * n_parameters, f"model={asked.name} with random weights")
        model.to_empty(device="cpu").tie()
        model.init_weights(weights.seed)
        _disturb(model, weights.seed)
        _prepare(model.to(device=device, dtype=_stored(dtype)))
    else:
        # One tensor at a time, so that a file in another dtype is never in memory twice as a whole.
        for name in list(state):
            state[name] = state[name].to(device=device, dtype=_stored(dtype))
        _fill(model, state)
    dtype_name = str(dtype).removeprefix("torch.")
    return Checkpoint(model, tokenizer, source, _name(config), label, dtype_name, path, stamp, account)


def _stored(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the weights of a model that computes in `dtype`."""
    return torch.float32 if dtype == torch.int8 else dtype


def _exact(tensors: Iterable[Tensor]) -> torch.dtype:
    """The dtype of 32 or 64 bits that holds all values of these tensors as they are."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


@torch.no_grad()
def _disturb(model: GPT2, seed: int) -> None:
    """Moves biases and norms away from GPT-2's initial 0 and 1, with which no check would notice a missing one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or ".ln_" in name:
            parameter.add_(torch.empty_like(parameter).normal_(0.0, 0.02, generator=generator))


def model_of(state: dict[str, Tensor], config: GPT2Config) -> GPT2:
    """A model for inference around these very tensors. The head is wte; parameters without a tensor have no memory."""
    model = empty_model(config)
    _fill(model, state)
    return model


def _fill(model: GPT2, state: dict[str, Tensor]) -> None:
    model.load_state_dict(state, assign=True, strict=False)
    model.tie()
    _prepare(model)


def _prepare(model: GPT2) -> None:
    """Makes a model with weights ready for inference."""
    model.eval().requires_grad_(False)
    kernels.swap_in(model)


def empty_model(config: GPT2Config) -> GPT2:
    """A model on the meta device: its weights have no memory."""
    with torch.device("meta"):
        return GPT2(config)


def complete_config(asked: ModelConfig) -> GPT2Config:
    """The architecture that model=NAME states. Raises UserError where it leaves a part to the checkpoint."""
    given = {key: getattr(asked, key) for key in ARCHITECTURE}
    if None in given.values():
        raise UserError(f"model={asked.name}: without a checkpoint, say which model: model=nano, model=gpt2, ...")
    return GPT2Config(**given)


def _name(config: GPT2Config) -> str:
    return size_like(config) or "custom"
