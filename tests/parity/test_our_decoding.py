"""Mistakes planted in our own cache, padding, filters and draws: validate names the stage of each."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt2x.decoding import engine, sampler
from gpt2x.decoding.filters import processors
from gpt2x.decoding.filters import warpers as filters
from gpt2x.model.cache import KVCache
from gpt2x.model.gpt2 import GPT2
from tests.conftest import read_csv, run_dir
from tests.parity.conftest import Validate, summary_of


def wrong_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    append = KVCache.append
    monkeypatch.setattr(
        KVCache, "append", lambda self, layer, k, v: append(self, layer, k * (1 + 1e-6 * self.lengths[0]), v)
    )


def wrong_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the left, where it is seen."""

    def padded(model: GPT2, texts: list[list[int]]) -> Tensor:
        T = max(map(len, texts))
        return torch.tensor([[0] * (T - len(text)) + text for text in texts])

    monkeypatch.setattr(engine, "_padded", padded)


def wrong_top_p(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = filters.keep_top_p
    monkeypatch.setattr(filters, "keep_top_p", lambda logits, p: keep(logits, p * 0.9))


def wrong_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """top_p before top_k."""

    def both(logits: Tensor, k: int) -> Tensor:
        return keep(filters.keep_top_p(logits, 0.5), k) if k == 5 else keep(logits, k)

    keep = filters.keep_top_k
    monkeypatch.setattr(filters, "keep_top_k", both)


def wrong_min_p(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of all probability, not of the likeliest token's."""
    monkeypatch.setattr(
        filters, "keep_min_p", lambda logits, p: logits.masked_fill(logits.softmax(-1) < min(p, 0.05), -torch.inf)
    )


def wrong_typical_p(monkeypatch: pytest.MonkeyPatch) -> None:
    """The likeliest tokens, not the most typical."""
    monkeypatch.setattr(filters, "keep_typical_p", filters.keep_top_p)


def wrong_repetition_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each time that the token is in the text."""
    penalize = processors.penalize_repetition

    def twice(logits: Tensor, texts: list[list[int]], penalty: float) -> Tensor:
        return penalize(penalize(logits, texts, penalty), [text[len(text) // 2 :] for text in texts], penalty)

    monkeypatch.setattr(processors, "penalize_repetition", twice)


def wrong_ngrams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of one token more."""
    repeating = processors.repeating_tokens
    monkeypatch.setattr(processors, "repeating_tokens", lambda text, n: repeating(text, n + 1))


def wrong_min_new_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt counts as new."""
    process = processors.process_logits
    monkeypatch.setattr(
        "gpt2x.parity.stages.sampling.process_logits",
        lambda logits, texts, n_prompts, *rest: process(logits, texts, [0] * len(texts), *rest),
    )


def stray_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token in 256 is none that top_k leaves: too few for a chi-square test of the others."""

    def draw(logits: Tensor, uniforms: Tensor) -> Tensor:
        tokens = right(logits, uniforms)
        tokens[0] = logits[0].argmin()
        return tokens

    right = sampler.draw
    monkeypatch.setattr(sampler, "draw", draw)


def wrong_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = sampler.draw
    monkeypatch.setattr(sampler, "draw", lambda logits, uniforms: draw(logits * 1.2, uniforms))


@pytest.mark.parametrize(
    ("mistake", "stage", "site"),
    [
        (wrong_cache, "cache", "tokens, one by one"),
        (wrong_padding, "padding", "tokens"),
        (wrong_top_p, "sampling", "top_p="),
        (wrong_order, "sampling", "top_k=5"),
        (wrong_min_p, "sampling", "min_p="),
        (wrong_typical_p, "sampling", "typical_p="),
        (wrong_repetition_penalty, "sampling", "repetition_penalty="),
        (wrong_ngrams, "sampling", "no_repeat_ngram_size=1"),
        (wrong_min_new_tokens, "sampling", "min_new_tokens=2"),
        (wrong_draws, "sampling", "draws"),
        (stray_draws, "sampling", "draws"),
    ],
)
def test_a_mistake_in_our_own_decoding_is_named(
    validate: Validate, launch: Path, monkeypatch: pytest.MonkeyPatch, mistake: Any, stage: str, site: str
) -> None:
    mistake(monkeypatch)
    stages = [stage, "config", "layers", "logits", "loss", "gradients"]
    assert validate(None, f"task.stages=[{','.join(stages)}]").code == 1
    rows = read_csv(run_dir(launch, "validate") / "parity.csv")
    assert {row["stage"] for row in rows if row["status"] != "ok"} == {stage}
    first = summary_of(launch)["first_divergence"]
    assert first.startswith(f"{stage}: ")
    assert site in first
