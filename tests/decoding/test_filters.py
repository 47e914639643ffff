"""Filters and processors are transformers': the same tokens kept, the same logits of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2x.config.decode import DecodeConfig
from gpt2x.decoding.filters.processors import process_logits
from gpt2x.decoding.filters.warpers import filter_logits
from gpt2x.parity.reference.oracle import oracle_filter, oracle_process

SOME = settings(deadline=None, derandomize=True, max_examples=200)
P = st.none() | st.floats(0.01, 0.99)


def random_logits(seed: int, vocab_size: int, scale: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, vocab_size, generator=generator, dtype=torch.float64) * scale


@SOME
@given(
    seed=st.integers(0, 2**32),
    vocab_size=st.sampled_from([1, 2, 7, 300, 513, 2000]),
    scale=st.sampled_from([0.1, 1.0, 3.0, 20.0]),
    temperature=st.floats(0.2, 3),
    top_k=st.none() | st.integers(1, 1000),
    top_p=P,
    min_p=P | st.just(1.0),
    typical_p=P,
)
def test_filters(seed, vocab_size, scale, temperature, top_k, top_p, min_p, typical_p):
    decode = DecodeConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p)
    logits = random_logits(seed, vocab_size, scale)
    before = logits.clone()
    ours, theirs = filter_logits(logits, decode).softmax(-1), oracle_filter(logits, decode).softmax(-1)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert torch.equal(ours > 0, theirs > 0)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("key", ["top_p", "min_p", "typical_p"])
@pytest.mark.parametrize("p", [0.3, 0.5, 0.9])
def test_equal_logits(key, p):
    """Of equal tokens at the border as many stay as in transformers; and just the same ones where all are sorted."""
    decode = DecodeConfig(**{key: p})
    for vocab_size in (8, 10, 3000):
        logits = random_logits(0, vocab_size, 4).round()
        ours, theirs = filter_logits(logits, decode), oracle_filter(logits, decode)
        assert torch.equal(ours.sort().values, theirs.sort().values)
        assert vocab_size == 3000 or torch.equal(ours, theirs)


@pytest.mark.parametrize("key", ["top_p", "typical_p"])
def test_a_wide_row_beside_a_narrow_one(key):
    """What is kept of a row is found among the likeliest tokens, or among all, whatever the row beside it needs."""
    narrow, wide = random_logits(0, 5000, 8)[:1], random_logits(1, 5000, 0.1)[:1]
    decode = DecodeConfig(**{key: 0.8})
    alone = [filter_logits(row, decode) for row in (narrow, wide)]
    kept = [int(row.isfinite().sum()) for row in alone]
    assert kept[0] < 512 < kept[1]
    assert torch.equal(filter_logits(torch.cat([wide, narrow, wide]), decode), torch.cat([alone[1], *alone]))


def test_one_is_off():
    logits = random_logits(0, 50, 30)
    assert filter_logits(logits, DecodeConfig(top_p=1.0, typical_p=1.0)) is logits


TEXTS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=30), min_size=1, max_size=5)


@SOME
@given(
    texts=TEXTS,
    data=st.data(),
    penalty=st.just(1.0) | st.floats(0.1, 3),
    n=st.none() | st.integers(1, 5),
    min_new_tokens=st.integers(0, 10),
    seed=st.integers(0, 2**32),
)
def test_processors(texts, data, penalty, n, min_new_tokens, seed):
    """Of rows of any lengths, over so few tokens that they repeat; the sixth is never in a text."""
    decode = DecodeConfig(repetition_penalty=penalty, no_repeat_ngram_size=n, min_new_tokens=min_new_tokens)
    logits = torch.randn(len(texts), 7, generator=torch.Generator().manual_seed(seed))
    before = logits.clone()
    n_prompts = [data.draw(st.integers(1, len(text))) for text in texts]
    ours = process_logits(logits, texts, n_prompts, decode, eos_id=2)
    torch.testing.assert_close(ours, oracle_process(logits, texts, n_prompts, decode, eos_id=2), rtol=1e-6, atol=0)
    assert torch.equal(logits, before)


def test_where_nothing_applies_the_logits_are_returned():
    logits = torch.randn(2, 10)
    texts = [[1, 2, 3], [4, 5, 6, 4]]
    for decode, eos_id in (
        (DecodeConfig(), 0),
        (DecodeConfig(no_repeat_ngram_size=3), 0),
        (DecodeConfig(min_new_tokens=1), 0),
        (DecodeConfig(min_new_tokens=5), None),
    ):
        assert process_logits(logits, texts, [2, 3], decode, eos_id) is logits
    assert process_logits(logits, texts, [2, 3], DecodeConfig(min_new_tokens=2), 0)[:, 0].tolist() == [-torch.inf] * 2
