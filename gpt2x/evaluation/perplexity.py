"""How well a model predicts a text: its loss in a window that slides over the text.

The windows are those of Hugging Face's page on perplexity (https://huggingface.co/docs/transformers/perplexity): each
has n_positions tokens (the last one fewer) and begins `stride` tokens after the one before. Of its tokens only those
count that no earlier window has predicted; the others are context. A smaller stride gives more context, and takes
longer. The sum here is over tokens, so that the perplexity is that of all tokens but the first.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.checkpoints.values import not_finite
from gpt2x.errors import UserError
from gpt2x.evaluation.rows import EvaluationRow
from gpt2x.model.gpt2 import GPT2
from gpt2x.prompts import Prompt


def evaluate_texts(
    checkpoint: Checkpoint,
    texts: list[Prompt],
    stride: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[EvaluationRow]:
    """One row per text. The stride is half of n_positions by default.

    on_progress is called after each window, with the number of windows done and that of all windows.

    Raises UserError before any work if the stride does not leave a token of context, or a text has fewer than two
    tokens; and where logits are not finite.
    """
    n_positions = checkpoint.model.config.n_positions
    stride = max(1, n_positions // 2) if stride is None else stride
    if not 1 <= stride < n_positions:
        raise UserError(f"task.stride={stride}: must be from 1 to {n_positions - 1}, as the context is {n_positions}")
    tokens = {text.id: checkpoint.tokenizer.encode(text.text) for text in texts}
    for text in texts:
        if len(tokens[text.id]) < 2:
            raise UserError(f"text {text.id!r} has {len(tokens[text.id])} tokens; at least 2 are needed")
    plans = {id: list(windows(len(ids), n_positions, stride)) for id, ids in tokens.items()}
    done, total = 0, sum(map(len, plans.values()))
    rows = []
    for text in texts:
        ids, nats = tokens[text.id], 0.0
        for window in plans[text.id]:
            nats += window_nats(checkpoint.model, ids, window)
            if not math.isfinite(nats):
                raise not_finite(checkpoint.model, checkpoint.name, checkpoint.dtype)
            done += 1
            on_progress(done, total)
        rows.append(_row(checkpoint, text, ids, nats, stride))
    return rows


def _row(checkpoint: Checkpoint, text: Prompt, ids: list[int], nats: float, stride: int) -> EvaluationRow:
    loss = nats / (len(ids) - 1)
    n_bytes = len(text.text.encode()) - checkpoint.tokenizer.n_bytes(ids[0])
    return EvaluationRow(
        text_id=text.id,
        n_tokens=len(ids) - 1,
        n_bytes=n_bytes,
        loss=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        bits_per_byte=nats / math.log(2) / n_bytes,
        stride=stride,
        model=checkpoint.name,
        weights=checkpoint.weights,
        dtype=checkpoint.dtype,
    )


@dataclass(frozen=True)
class Window:
    """A part of a text that goes through the model at once."""

    begin: int
    end: int
    n_new: int
    """The number of its last tokens that no earlier window has predicted."""


def windows(n: int, n_positions: int, stride: int) -> Iterator[Window]:
    """The windows of a text of n tokens. Each token but the first one of the text is new in exactly one window."""
    predicted = 1
    for begin in range(0, n, stride):
        end = min(begin + n_positions, n)
        yield Window(begin, end, end - predicted)
        predicted = end
        if end == n:
            break


@torch.inference_mode()
def window_nats(model: GPT2, ids: list[int], window: Window) -> float:
    """The negative log-likelihood of a window's new tokens, in nats."""
    inputs = torch.tensor([ids[window.begin : window.end]], device=model.lm_head.weight.device)  # [1, T]
    hidden = model.transformer(inputs)[0, -window.n_new - 1 : -1]  # [n_new, C], of the tokens before the new ones
    logits = model.lm_head(hidden)  # [n_new, V]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, inputs[0, -window.n_new :], reduction="sum").item()
