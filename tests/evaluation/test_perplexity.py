"""Perplexity: the windows, and Hugging Face's model as the oracle."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

import gpt2x
from gpt2x.evaluation.perplexity import windows
from gpt2x.tokenizer import load_tokenizer

TEXT = "".join(f"line {i} says: to be, or not to be, that's question {i * i}. é\n" for i in range(8))


def oracle_nats(folder: Path, ids: list[int], n_positions: int, stride: int) -> float:
    """As on https://huggingface.co/docs/transformers/perplexity, in float64, with the sum in place of the mean.

    Labels of -100 mark the context. The loss is the mean over the labels that are left, the first of a window, which
    nothing predicts, not counted. transformers computes it from logits rounded to float32.
    """
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float64)
    input_ids = torch.tensor([ids])
    total, previous_end = 0.0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + n_positions, len(ids))
        n_targets = end - previous_end
        window = input_ids[:, begin:end]
        labels = window.clone()
        labels[:, :-n_targets] = -100
        with torch.no_grad():
            loss = model(window, labels=labels).loss.item()
        total += loss * (labels[:, 1:] != -100).sum().item()
        previous_end = end
        if end == len(ids):
            break
    return total


@pytest.mark.parametrize("stride", [1, 7, 32, 63, None])
def test_it_is_hugging_faces_strided_perplexity(tiny_dir: Path, stride: int | None) -> None:
    ids = load_tokenizer(tiny_dir).encode(TEXT)
    nats = oracle_nats(tiny_dir, ids, 64, 32 if stride is None else stride)
    model = gpt2x.load(tiny_dir, dtype="float64", device="cpu")
    (row,) = gpt2x.evaluate(TEXT, model=model, stride=stride).to_dict("records")
    assert row["n_tokens"] == len(ids) - 1
    assert row["loss"] == pytest.approx(nats / (len(ids) - 1), rel=1e-6)
    assert row["perplexity"] == pytest.approx(math.exp(nats / (len(ids) - 1)), rel=1e-5)
    n_bytes = len(TEXT.encode()) - len("line")  # which is the first token
    assert row["n_bytes"] == n_bytes
    assert row["bits_per_byte"] == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-6)
    assert (row["stride"], row["dtype"]) == (32 if stride is None else stride, "float64")


def test_a_short_text_is_one_window(tiny_dir: Path) -> None:
    ids = load_tokenizer(tiny_dir).encode("to be, or not")
    assert 2 < len(ids) < 64
    model = gpt2x.load(tiny_dir, dtype="float64", device="cpu")
    row = gpt2x.evaluate("to be, or not", model=model).iloc[0]
    assert row["loss"] * (len(ids) - 1) == pytest.approx(oracle_nats(tiny_dir, ids, 64, 32), rel=1e-6)


@given(st.integers(2, 60), st.integers(2, 12), st.integers(1, 11))
def test_each_token_is_predicted_once_and_has_context(n: int, n_positions: int, stride: int) -> None:
    stride = min(stride, n_positions - 1)
    predicted: list[int] = []
    for window in windows(n, n_positions, stride):
        assert 0 < window.n_new < window.end - window.begin <= n_positions
        predicted += range(window.end - window.n_new, window.end)
    assert predicted == list(range(1, n))


def test_the_bytes_of_a_part_of_a_character(tiny_dir: Path) -> None:
    tokenizer = load_tokenizer(tiny_dir)
    ids = tokenizer.encode("é, x")
    assert [tokenizer.n_bytes(id) for id in ids[:2]] == [1, 1]  # é has two bytes, and this vocabulary no token for it
    assert gpt2x.evaluate("é, x", model=tiny_dir)["n_bytes"].tolist() == [4]


def test_a_stride_without_context_is_refused(tiny_dir: Path) -> None:
    with pytest.raises(gpt2x.UserError, match=r"task\.stride=64: must be from 1 to 63"):
        gpt2x.evaluate(TEXT, model=tiny_dir, stride=64)
