"""Mistakes in embeddings: scaled by the width, or left out. ids [B, T] -> [B, T, C]."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.mistakes.mistake import WrongForward

IN_EMBEDDING: tuple[WrongForward[nn.Embedding], ...] = (
    WrongForward(
        Cause("embedding scaled by sqrt(n_embd)", kind=Kind.EMBEDDING_SCALE),
        lambda m, ids: F.embedding(ids, m.weight) * math.sqrt(m.embedding_dim),
    ),
    WrongForward(
        Cause("embedding divided by sqrt(n_embd)", kind=Kind.EMBEDDING_SCALE),
        lambda m, ids: F.embedding(ids, m.weight) / math.sqrt(m.embedding_dim),
    ),
    WrongForward(
        Cause("embedding left out", kind=Kind.EMBEDDING), lambda m, ids: F.embedding(ids, torch.zeros_like(m.weight))
    ),
)
