"""Beam search against transformers' generate(num_beams=...): the same texts in the same order."""

import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from gpt2x.checkpoints.contents import Contents
from gpt2x.checkpoints.load import load_checkpoint, model_of
from gpt2x.checkpoints.resolve import resolve
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.decoding.engine import decode_one_token
from gpt2x.decoding.search import beams
from gpt2x.decoding.search.beams import beam_search
from gpt2x.model.config import GPT2Config
from tests.conftest import NANO, tiny_hf

EOS = 7
PENALTIES = (-1.0, 0.0, 0.5, 1.0, 2.0)


@cache
def pair(seed: int, vocab_size: int = 260):
    """Our model and a transformers model with the same random weights, in float64; both like to end, soon or late."""
    sizes = {"vocab_size": vocab_size, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}
    hf = tiny_hf(seed=seed, **sizes).double()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.4)
        end = hf.lm_head.weight[EOS % vocab_size].mul_(2)
        hf.transformer.ln_f.bias.add_(end, alpha=0.45)
    config = GPT2Config(**sizes)
    asked = ModelConfig(name="auto", **sizes)
    return model_of(resolve(Contents("", hf.state_dict()), asked, None, Path("hf")).state, config), hf


def random_prompts(*lengths: int, seed: int = 0, vocab_size: int = 260) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(vocab_size) for _ in range(length)] for length in lengths]


def identity(logprobs, texts, n_prompts):
    return logprobs


def ours(model, prompts, num_beams=4, num_return=None, length_penalty=1.0, new=12, eos_id=EOS, process=identity):
    return beam_search(model, prompts, num_beams, num_return or num_beams, length_penalty, new, eos_id, process)


def ids_of(found) -> list[list[list[int]]]:
    return [[completion.ids for completion in completions] for completions in found]


def theirs(hf, prompts, num_beams=4, num_return=None, length_penalty=1.0, new=12, eos_id=EOS, **options):
    """What ids_of gives: for each prompt, searched alone, its texts, best first."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = hf.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_beams=num_beams,
            num_return_sequences=num_return or num_beams,
            length_penalty=length_penalty,
            max_new_tokens=new,
            do_sample=False,
            early_stopping=False,
            eos_token_id=eos_id,
            pad_token_id=-1 if eos_id is None else eos_id,
            **options,
        )
        found.append([_until_eos(row[len(prompt) :].tolist(), eos_id) for row in out])
    return found


def _until_eos(ids: list[int], eos_id: int | None) -> list[int]:
    return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids


@torch.inference_mode()
def hf_logprob(hf, prompt: list[int], new: list[int]):
    """Sum over the new tokens under the plain model, from one uncached pass; equal to what float32 makes of it."""
    logprobs = hf(torch.tensor([prompt + new])).logits[0].log_softmax(-1)
    total = sum(logprobs[len(prompt) - 1 + i, token].item() for i, token in enumerate(new))
    return pytest.approx(total, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("length_penalty", PENALTIES)
@pytest.mark.parametrize("num_beams", [2, 3, 4, 5])
def test_equals_transformers(num_beams, length_penalty):
    """Prompts of several lengths, together; some searches are over before others, and some beams end early."""
    model, hf = pair(num_beams)
    prompts = random_prompts(3, 1, 17, 9, 9, seed=num_beams)
    found = ours(model, prompts, num_beams, None, length_penalty)
    assert ids_of(found) == theirs(hf, prompts, num_beams, None, length_penalty)
    for prompt, completions in zip(prompts, found, strict=True):
        for completion in completions:
            assert completion.finish_reason == ("eos" if completion.ids[-1] == EOS else "length")
            assert completion.logprob == hf_logprob(hf, prompt, completion.ids)


def test_the_models_of_these_tests_end_early_and_late():
    """The parity tests would say little if all searches were over at once, or none."""
    found = [ours(pair(seed)[0], random_prompts(3, 1, 17, 9, 9, seed=seed)) for seed in range(8)]
    lengths = [len(completion.ids) for searches in found for completions in searches for completion in completions]
    assert {1, 2, 3, 4, 5, 12} <= set(lengths)
    assert 0.2 < lengths.count(12) / len(lengths) < 0.8


@pytest.mark.parametrize("seed", range(40))
def test_random_settings_equal_transformers(seed):
    model, hf = pair(seed % 8)
    choose = random.Random(seed)
    prompts = random_prompts(*(choose.randint(1, 20) for _ in range(choose.randint(1, 4))), seed=seed)
    num_beams = choose.randint(1, 6)
    settings = {
        "num_beams": num_beams,
        "num_return": choose.randint(1, num_beams),
        "length_penalty": choose.choice([*PENALTIES, -0.3, 5.0]),
        "new": choose.choice([1, 2, 7, 20, 40]),
        "eos_id": choose.choice([EOS, EOS, None]),
    }
    found = ids_of(ours(model, prompts, **settings))
    assert found == theirs(hf, prompts, **settings)
    assert found == [ids_of(ours(model, [prompt], **settings))[0] for prompt in prompts]


def test_num_return_cuts_the_list():
    model, hf = pair(0)
    prompts = random_prompts(5, 2)
    everything = ids_of(ours(model, prompts, 5))
    for num_return in range(1, 6):
        found = ids_of(ours(model, prompts, 5, num_return))
        assert found == [texts[:num_return] for texts in everything] == theirs(hf, prompts, 5, num_return)


def test_one_beam_is_greedy_search():
    model, hf = pair(1)
    prompts = random_prompts(4, 11, 1)
    for length_penalty in PENALTIES:
        assert ids_of(ours(model, prompts, 1, 1, length_penalty)) == theirs(hf, prompts, 1, 1)


@pytest.mark.parametrize("new", [1, 2])
def test_few_new_tokens(new):
    model, hf = pair(2)
    prompts = random_prompts(4, 11)
    assert ids_of(ours(model, prompts, 5, new=new)) == theirs(hf, prompts, 5, new=new)


def test_to_the_last_position():
    model, hf = pair(3)
    prompts = random_prompts(44, 50)
    assert ids_of(ours(model, prompts, 3, new=14, eos_id=None)) == theirs(hf, prompts, 3, new=14, eos_id=None)
    with pytest.raises(ValueError, match="n_positions"):
        ours(model, prompts, 3, new=17, eos_id=None)


@pytest.mark.parametrize("vocab_size", [3, 5, 6, 7])
def test_a_vocabulary_smaller_than_twice_the_beams(vocab_size):
    """Beams that only fill places are among the first candidates, and never among the results."""
    model, hf = pair(0, vocab_size)
    prompts = random_prompts(3, 6, vocab_size=vocab_size)
    for eos_id in (None, 2):
        assert ids_of(ours(model, prompts, eos_id=eos_id)) == theirs(hf, prompts, eos_id=eos_id)


def penalize_repetition(logprobs, texts, n_prompts):
    logprobs = logprobs.clone()
    for row, text in zip(logprobs, texts, strict=True):
        seen = list(set(text))
        row[seen] = torch.where(row[seen] < 0, row[seen] * 1.4, row[seen] / 1.4)
    return logprobs


def ban_repeated_bigrams(logprobs, texts, n_prompts):
    logprobs = logprobs.clone()
    for row, text in zip(logprobs, texts, strict=True):
        row[[b for a, b in pairwise(text) if a == text[-1]]] = -torch.inf
    return logprobs


def ban_eos_for_five_tokens(logprobs, texts, n_prompts):
    logprobs = logprobs.clone()
    for row, text, n_prompt in zip(logprobs, texts, n_prompts, strict=True):
        if len(text) - n_prompt < 5:
            row[EOS] = -torch.inf
    return logprobs


@pytest.mark.parametrize(
    ("process", "option"),
    [
        (penalize_repetition, {"repetition_penalty": 1.4}),
        (ban_repeated_bigrams, {"no_repeat_ngram_size": 2}),
        (ban_eos_for_five_tokens, {"min_new_tokens": 5}),
    ],
    ids=["repetition_penalty", "no_repeat_ngram_size", "min_new_tokens"],
)
def test_processors_see_log_probabilities_and_whole_texts(process, option):
    changed = 0
    for seed in range(3):
        model, hf = pair(seed)
        prompts = random_prompts(3, 12, 6, seed=seed)
        found = ours(model, prompts, new=20, process=process)
        assert ids_of(found) == theirs(hf, prompts, new=20, **option)
        changed += ids_of(found) != ids_of(ours(model, prompts, new=20))
        for prompt, completions in zip(prompts, found, strict=True):  # the log-probability is of the plain model
            for completion in completions:
                assert completion.logprob == hf_logprob(hf, prompt, completion.ids)
    assert changed >= 2


def test_where_every_token_is_banned_completions_are_empty():
    model, hf = pair(0)
    prompts = random_prompts(4, 2)
    found = ours(model, prompts, process=lambda logprobs, texts, n_prompts: logprobs - torch.inf)
    assert ids_of(found) == theirs(hf, prompts, logits_processor=[lambda ids, logprobs: logprobs - torch.inf])
    assert ids_of(found) == [[[]] * 4] * 2


@pytest.mark.parametrize("num_beams", [1, 4])
def test_nano_in_float32_equals_transformers(num_beams):
    checkpoint = load_checkpoint(
        ModelConfig(name="auto"), WeightsConfig(source="local", path=str(NANO)), torch.float32, torch.device("cpu")
    )
    hf = GPT2LMHeadModel.from_pretrained(NANO, dtype=torch.float32).eval()
    prompts = [checkpoint.tokenizer.encode(text) for text in ("Once upon a time", "The", "I do not know what he said.")]
    eos_id = checkpoint.tokenizer.eos_id
    for length_penalty in (0.0, 2.0):
        settings = {"num_beams": num_beams, "length_penalty": length_penalty, "new": 24, "eos_id": eos_id}
        assert ids_of(ours(checkpoint.model, prompts, **settings)) == theirs(hf, prompts, **settings)


def test_prompts_of_one_length_equal_a_batch_of_transformers():
    """Not alone: what transformers gives for a batch, in which one search waits for another."""
    model, hf = pair(4)
    prompts = random_prompts(6, 6, 6, 6)
    out = hf.generate(
        torch.tensor(prompts),
        attention_mask=torch.ones(4, 6, dtype=torch.long),
        num_beams=3,
        num_return_sequences=3,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    texts = [_until_eos(row[6:].tolist(), EOS) for row in out]
    assert ids_of(ours(model, prompts, 3)) == [texts[i : i + 3] for i in range(0, 12, 3)]


def test_a_prompt_whose_search_is_over_leaves_the_batch(monkeypatch):
    rows = []

    def count(model, tokens, cache):
        rows.append(len(tokens))
        assert len(cache.lengths) == len(tokens)
        return decode_one_token(model, tokens, cache)

    monkeypatch.setattr(beams, "decode_one_token", count)
    ours(pair(0)[0], random_prompts(3, 1, 17, 9, 9))
    assert rows[0] == 20
    assert rows == sorted(rows, reverse=True)
    assert len(set(rows)) > 2
