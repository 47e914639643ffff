"""Decoding against transformers: greedy tokens, filters, log-probabilities."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel, LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.decode import DecodeConfig
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.decoding.filters.warpers import filter_logits
from gpt2x.decoding.generate import Request, generate
from gpt2x.decoding.sampler import Sampler
from gpt2x.tokenizer import Tokenizer, train_tokenizer
from tests.conftest import NANO, read_csv, run_dir, tiny_hf


def load(folder: Path, dtype: torch.dtype = torch.float32):
    weights = WeightsConfig(source="local", path=str(folder))
    return load_checkpoint(ModelConfig(name="auto"), weights, dtype, torch.device("cpu"))


def pair(folder: Path, seed: int = 0, tokenizer: Tokenizer | None = None):
    """A transformers model with likes and dislikes (fresh ones repeat a token for ever), and ours with its weights."""
    hf = tiny_hf(seed=seed)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    hf.save_pretrained(folder)
    (tokenizer or train_tokenizer("", 257)).save(folder)
    return load(folder).model, hf


def random_prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(300, (length,), generator=generator).tolist() for length in lengths]


def complete(model, prompts: list[list[int]], decode: DecodeConfig, eos_id: int | None = None, **options):
    """The completions in the order of the prompts."""
    requests = [Request(prompt, str(prompt)) for prompt in prompts]
    found = dict(generate(model, requests, Sampler(decode, 5, eos_id), **options))
    assert sorted(found) == list(range(len(prompts)))
    return [found[i] for i in range(len(prompts))]


def greedy(model, prompts: list[list[int]], max_new_tokens: int, eos_id: int | None = None, **options):
    return complete(model, prompts, DecodeConfig(greedy=True, max_new_tokens=max_new_tokens), eos_id, **options)


def hf_greedy(hf, prompt: list[int], max_new_tokens: int, eos_id: int | None = None) -> list[int]:
    ids = torch.tensor([prompt])
    out = hf.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=eos_id,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


@torch.inference_mode()
def hf_logprob(hf, prompt: list[int], new: list[int]) -> float:
    """Sum over the new tokens under the plain model, from one uncached pass."""
    logprobs = hf(torch.tensor([prompt + new])).logits[0].double().log_softmax(-1)
    return sum(logprobs[len(prompt) - 1 + i, token].item() for i, token in enumerate(new))


@pytest.mark.parametrize("seed", range(4))
def test_greedy_equals_transformers(tmp_path, seed):
    ours, hf = pair(tmp_path, seed)
    for prompt, new in zip(random_prompts(1, 2, 17, 50), (63, 20, 30, 14), strict=True):  # to the last position, twice
        (completion,) = greedy(ours, [prompt], new)
        assert completion.ids == hf_greedy(hf, prompt, new)
        assert completion.finish_reason == "length"
        assert len(set(completion.ids)) > 3  # a model stuck on a token would hide a wrong cache


def test_greedy_of_the_bundled_model_equals_transformers():
    ours = load(NANO, torch.float64)
    hf = GPT2LMHeadModel.from_pretrained(NANO, dtype=torch.float64).eval()
    for text in ("The quick brown fox", "Once upon a time there was", "\n"):
        prompt = ours.tokenizer.encode(text)
        (completion,) = greedy(ours.model, [prompt], 60, ours.tokenizer.eos_id)
        assert completion.ids == hf_greedy(hf, prompt, 60, ours.tokenizer.eos_id)


@pytest.mark.parametrize("seed", range(3))
def test_ragged_batch_equals_one_by_one(tmp_path, seed):
    ours, hf = pair(tmp_path, seed)
    prompts = random_prompts(1, 13, 6, 13, 40)
    together = greedy(ours, prompts, 24)
    for prompt, completion in zip(prompts, together, strict=True):
        (alone,) = greedy(ours, [prompt], 24)
        assert completion.ids == alone.ids == hf_greedy(hf, prompt, 24)
        assert completion.logprob == pytest.approx(alone.logprob, rel=1e-5)


def test_eos_ends_a_row_and_only_that_row(tmp_path):
    ours, hf = pair(tmp_path)
    prompts = random_prompts(5, 9, 5)
    free = greedy(ours, prompts, 20)
    eos = free[0].ids[7]
    streamed: list[list[int]] = [[], [], []]
    ended = greedy(ours, prompts, 20, eos, on_token=lambda request, pick: streamed[request].append(pick.token))
    stops = [1 + completion.ids.index(eos) if eos in completion.ids else 20 for completion in free]
    assert stops[0] < 20
    assert max(stops) == 20
    for prompt, before, after, stop in zip(prompts, free, ended, stops, strict=True):
        assert after.ids == before.ids[:stop] == hf_greedy(hf, prompt, 20, eos)
        assert after.finish_reason == ("eos" if eos in before.ids else "length")
        assert after.logprob == pytest.approx(hf_logprob(hf, prompt, after.ids), rel=1e-5)
    assert streamed == [completion.ids for completion in ended]


def test_eos_as_the_last_allowed_token_is_eos(tmp_path):
    ours, _ = pair(tmp_path)
    (free,) = greedy(ours, random_prompts(3), 10)
    stop = 1 + free.ids.index(free.ids[6])
    (ended,) = greedy(ours, random_prompts(3), stop, free.ids[6])
    assert (ended.ids, ended.finish_reason) == (free.ids[:stop], "eos")


@pytest.mark.parametrize(
    "decode",
    [
        DecodeConfig(),
        DecodeConfig(temperature=0.5),
        DecodeConfig(top_k=3),
        DecodeConfig(temperature=2.0, top_k=50, top_p=0.8),
    ],
    ids=str,
)
def test_logprob_is_of_the_unfiltered_model(tmp_path, decode):
    ours, hf = pair(tmp_path)
    prompts = random_prompts(4, 1, 11)
    for prompt, completion in zip(prompts, complete(ours, prompts, replace(decode, max_new_tokens=25)), strict=True):
        assert completion.logprob == pytest.approx(hf_logprob(hf, prompt, completion.ids), rel=1e-5)


def test_generations_csv_equals_transformers(gpt2x, launch, tmp_path):
    """The whole way: command line, tokenizer, padding, CSV."""
    tokenizer = train_tokenizer(" ".join(str(i * i) for i in range(400)), 300)
    _, hf = pair(tmp_path, tokenizer=tokenizer)
    done = gpt2x(
        "task=generate",
        "decode=greedy",
        "decode.max_new_tokens=12",
        "device=cpu",
        f"weights.path={tmp_path}",
        "prompt=['1', '4 9 16 25, and so on', 'x']",
    )
    assert done.code == 0, done.err
    rows = read_csv(run_dir(launch, "generate") / "generations.csv")
    assert [row["prompt"] for row in rows] == ["1", "4 9 16 25, and so on", "x"]
    for row in rows:
        prompt = tokenizer.encode(row["prompt"])
        new = hf_greedy(hf, prompt, 12, tokenizer.eos_id)
        assert row["completion"] == tokenizer.decode([id for id in new if id != tokenizer.eos_id])
        assert int(row["n_prompt_tokens"]) == len(prompt)
        assert int(row["n_new_tokens"]) == len(new)
        assert float(row["logprob"]) == pytest.approx(hf_logprob(hf, prompt, new), rel=1e-5)


def logits_with_corners() -> torch.Tensor:
    """[6, 300]: spread, flat, nearly one-hot, tied in steps, all equal, and some at -inf."""
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(0))
    logits[0] *= 4
    logits[1] *= 0.1
    logits[2, 17] = 40
    logits[3] = logits[3].round()
    logits[4] = 1.5
    logits[5, ::3] = -torch.inf
    return logits


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [None, 1, 2, 40, 299, 300, 1000])
@pytest.mark.parametrize("top_p", [None, 1e-9, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_filters_equal_transformers(temperature, top_k, top_p):
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    warpers += [TopKLogitsWarper(top_k)] if top_k is not None else []
    warpers += [TopPLogitsWarper(top_p)] if top_p is not None and top_p < 1 else []  # as generate does
    logits = logits_with_corners()
    before = logits.clone()
    ours = filter_logits(logits, DecodeConfig(temperature=temperature, top_k=top_k, top_p=top_p))
    theirs = warpers(None, logits)
    assert torch.equal(logits, before)  # not changed in place
    assert torch.equal(ours.isfinite(), theirs.isfinite())
    total_variation = (ours.softmax(-1) - theirs.softmax(-1)).abs().sum(-1) / 2
    assert total_variation.max() < 1e-6


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(1e-18, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (0.94, 3), (0.96, 4), (1.0, 4)],
)
def test_top_p_keeps_the_token_that_crosses_it(top_p, kept):
    likeliest_first = [2, 0, 3, 1]
    probabilities = torch.empty(1, 4, dtype=torch.float64)
    probabilities[0, likeliest_first] = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    filtered = filter_logits(probabilities.log(), DecodeConfig(top_p=top_p))
    assert sorted(likeliest_first[:kept]) == filtered.isfinite()[0].nonzero().flatten().tolist()


def test_top_p_is_taken_of_what_temperature_and_top_k_leave():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()
    assert filter_logits(logits, DecodeConfig(top_p=0.5)).isfinite().tolist() == [[True, True, False, False]]
    # The first token has 0.57 of the probability of the top 2, and 0.53 of all at temperature 0.5: it reaches top_p.
    assert filter_logits(logits, DecodeConfig(top_k=2, top_p=0.5)).isfinite().tolist() == [[True] + [False] * 3]
    assert filter_logits(logits, DecodeConfig(temperature=0.5, top_p=0.5)).isfinite().tolist() == [[True] + [False] * 3]
