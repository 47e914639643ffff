"""The training text: its two splits as tokens, and random windows of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2x.errors import UserError
from gpt2x.tokenizer import Tokenizer

TRAIN_SHARE = 0.9  # of the text's characters; the rest is the validation split


@dataclass(frozen=True)
class Tokens:
    """Both splits of a text as token ids."""

    train: Tensor
    """[number of training tokens]."""
    val: Tensor
    """[number of validation tokens]."""
    val_bytes: int
    """UTF-8 bytes of the validation text that the model predicts: all but those of its first token."""


def split_text(text: str) -> tuple[str, str]:
    """The training split and the validation split."""
    cut = int(len(text) * TRAIN_SHARE)
    return text[:cut], text[cut:]


def encode_splits(tokenizer: Tokenizer, train_text: str, val_text: str, n_positions: int) -> Tokens:
    """Both splits as tokens; UserError if the training split has no whole window, or the other nothing to predict."""
    train = _encode(tokenizer, train_text, "training", n_positions)
    val = _encode(tokenizer, val_text, "validation", 1)
    return Tokens(train, val, len(val_text.encode()) - len(tokenizer.decode(val[:1].tolist()).encode()))


def _encode(tokenizer: Tokenizer, text: str, split: str, context: int) -> Tensor:
    ids = torch.tensor(tokenizer.encode(text))
    if len(ids) <= context:
        raise UserError(f"task.data: its {split} split has {len(ids)} tokens; at least {context + 1} are needed")
    return ids


def random_windows(ids: Tensor, B: int, T: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random windows of the tokens, and the same windows one token later: [B, T] each."""
    starts = torch.randint(len(ids) - T, (B, 1))
    windows = ids[starts + torch.arange(T + 1)].to(device)  # [B, T + 1]
    return windows[:, :-1], windows[:, 1:]
