"""From what a format has read to the weights of the model: names, layout, vocabulary and checks, with an account."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.checkpoints.account import Account, row_of, rows_of
from gpt2x.checkpoints.architecture import architecture, fitting, read_config, shapes_of
from gpt2x.checkpoints.contents import Contents, Layout, Stated
from gpt2x.checkpoints.layout import layouts
from gpt2x.checkpoints.names import HEAD, WTE, Named, is_conv1d, named
from gpt2x.checkpoints.rows import Step
from gpt2x.checkpoints.sizes import ARCHITECTURE, size_like
from gpt2x.checkpoints.values import check_values
from gpt2x.checkpoints.vocabulary import evidence, may_be_padded
from gpt2x.config.model import ModelConfig
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.paths import shown
from gpt2x.visible import visible

_LISTED = 3


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint, as the model has them."""

    config: GPT2Config
    state: dict[str, Tensor]
    """The model's state dict without the tied head: views of the file where possible."""
    account: Account


def resolve(contents: Contents, asked: ModelConfig, layout: str | None, path: Path, measure: bool = False) -> Weights:
    """The weights in the names and layout of the model.

    `layout` is the setting weights.layout. With `measure`, the account has norms and checksums. Raises UserError,
    naming the tensor, where one is missing, unexpected, of another shape than in the model (with the known size that
    would fit), or not finite; where its layout is ambiguous; and where the head is not tied to wte.
    """
    found = named(contents.tensors, path)
    said = contents.stated or read_config(path)
    config, notes = architecture(found.tensors, said, asked, path)
    n_rows = found.tensors[WTE].shape[0]
    may_pad = asked.vocab_size is None and (said is None or said.may_pad)
    n_kept, padding = _vocabulary(found.tensors[WTE], config, may_pad, said)
    notes += padding
    if config.vocab_size == n_rows:
        config = replace(config, vocab_size=n_kept)
    is_cut = n_kept < n_rows
    tensors = {
        name: tensor[:n_kept] if name in (WTE, HEAD) and is_cut and tensor.shape[:1] == (n_rows,) else tensor
        for name, tensor in found.tensors.items()
    }
    of_matrix = layouts(tensors, contents.layout, layout, path)
    linear = {name for name, kind in of_matrix.items() if kind is Layout.LINEAR}
    in_hf = {name: tensor.t() if name in linear and tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    is_asked = any(getattr(asked, key) is not None for key in ARCHITECTURE)
    custom = "custom" if said is None or is_asked else said.origin
    model = asked.name if asked.name != "auto" else size_like(config) or custom
    zeros = _check_names(in_hf, found.unknown, config, said, model, path)
    head, extremes = check_values(in_hf, path)
    state = {name: tensor.t() if is_conv1d(name) else tensor for name, tensor in in_hf.items() if name != HEAD}
    account = Account(
        contents.format,
        (
            *rows_of(contents, found, in_hf, linear, is_cut, measure),
            *(row_of(None, name, tensor, None, (Step.ZERO,)) for name, tensor in zeros.items()),
            *([row_of(None, HEAD, None, None, (Step.TIE,))] if not head else []),
        ),
        (*contents.notes, *notes, *extremes),
        _reads_alike(contents, found, linear, is_cut or bool(zeros)),
    )
    return Weights(config, state | zeros, account)


def _vocabulary(wte: Tensor, config: GPT2Config, may_pad: bool, said: Stated | None) -> tuple[int, list[str]]:
    """The number of rows of wte that stand for tokens, and notes on the others.

    Without evidence that the others are padding, that is all rows; a model of fewer does not fit them then.
    """
    n_rows, n_used = wte.shape[0], config.vocab_size
    if n_used == n_rows and may_pad and may_be_padded(n_rows):
        n_used = GPT2Config.vocab_size
    if n_used >= n_rows:
        return n_rows, []
    if said is not None and said.padded_vocab_size == n_rows and said.vocab_size == n_used:
        why: str | None = f"are padding, as {said.origin} says"
    else:
        why = evidence(wte, n_used)
    rows = f"the vocabulary has {n_rows} rows, and those from {n_used} on are"
    if why is None:
        return n_rows, [f"{rows} kept: their values do not show that they are padding"]
    return n_used, [f"{rows} cut off: they {why}"]


def _check_names(
    tensors: Mapping[str, Tensor], unknown: list[str], config: GPT2Config, said: Stated | None, model: str, path: Path
) -> dict[str, Tensor]:
    """The biases of zeros in the place of those that the file states to lack. Raises UserError as resolve does."""
    wanted = shapes_of(config)
    # Shapes come first, in the model's order, because they tell most about what went wrong.
    for name, shape in (wanted | {HEAD: wanted[WTE]}).items():
        if name in tensors and tensors[name].shape != shape:
            got, fits = list(tensors[name].shape), fitting(tensors, path, model, config)
            raise UserError(f"{shown(path)}: {name} has shape {got}, {model} needs {list(shape)}{fits}")
    missing = [name for name in wanted if name not in tensors]
    zeros = {}
    if said is not None and not said.bias:
        zeros = {name: torch.zeros(wanted[name]) for name in missing if name.endswith(".bias")}
        missing = [name for name in missing if name not in zeros]
    unexpected = [name for name in tensors if name not in wanted and name != HEAD] + unknown
    for problem, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            listed = ", ".join(visible(name)[:80] for name in names[:_LISTED])
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            verb = "is" if len(names) == 1 else "are"
            raise UserError(
                f"{shown(path)}: {listed}{more} {verb} {problem} for {model}{fitting(tensors, path, model, config)}"
            )
    return zeros


def _reads_alike(contents: Contents, found: Named, linear: set[str], converted: bool) -> bool:
    """Whether transformers finds the same weights in the file by itself."""
    own = all(source in (name, name.removeprefix("transformer.")) for name, source in found.sources.items())
    return own and not linear and not converted and not contents.steps and not contents.dtypes
