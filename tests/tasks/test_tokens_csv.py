"""decode.logprobs: tokens.csv against transformers, and against generations.csv."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel

from gpt2x.tokenizer import load_tokenizer
from tests.conftest import Cli, read_csv, tiny_hf

COLUMNS = ["prompt_id", "sample", "step", "rank", "token_id", "token", "logprob", "chosen", "kept"]
PROMPTS = ["line 3 says: to be", "or", "that's question 49.\nline 8", "or"]

Steps = Callable[..., tuple[list[dict[str, Any]], dict[tuple[str, str], list[list[dict[str, Any]]]]]]


@pytest.fixture(scope="module")
def weights(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose distributions are far from flat."""
    folder = tmp_path_factory.mktemp("peaked")
    hf = tiny_hf(eos_token_id=0, bos_token_id=0)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    hf.save_pretrained(folder)
    load_tokenizer(tiny_dir).save(folder)
    return folder


@pytest.fixture
def steps(gpt2x: Cli, launch: Path, weights: Path) -> Steps:
    """generations.csv, and of tokens.csv the rows of each step of each of its samples, in the file's order."""

    def run(*args: str) -> Any:
        (launch / "p.csv").write_text("prompt\n" + "\n".join(f'"{prompt}"' for prompt in PROMPTS) + "\n")
        fixed = ("task=generate", "hydra.run.dir=out", f"weights.path={weights}", "prompts_file=p.csv")
        result = gpt2x(*fixed, "decode.max_new_tokens=12", *args)
        assert (result.code, result.err) == (0, "")
        rows = read_csv(launch / "out" / "tokens.csv")
        assert list(rows[0]) == COLUMNS
        samples = {
            key: [list(step) for _, step in groupby(group, lambda row: row["step"])]
            for key, group in groupby(rows, lambda row: (row["prompt_id"], row["sample"]))
        }
        return read_csv(launch / "out" / "generations.csv"), samples

    return run


SETTINGS = [
    ("decode=greedy", "decode.logprobs=3"),
    ("decode.num_samples=2", "decode.logprobs=1", "batch_size=3"),
    ("decode.logprobs=4", "decode.top_k=5", "decode.temperature=2.5"),
    ("decode.logprobs=1000", "decode.max_new_tokens=3"),
    ("decode=greedy", "decode.logprobs=2", "decode.lookup=true", "decode.max_new_tokens=40"),
    ("decode.logprobs=2", "decode.repetition_penalty=1.5", "decode.no_repeat_ngram_size=2"),
    ("decode.logprobs=2", "decode.max_new_tokens=55", "decode.on_overflow=crop"),
]


@pytest.mark.parametrize("args", SETTINGS, ids=" ".join)
@torch.inference_mode()
def test_every_number_is_transformers(steps: Steps, weights: Path, args: tuple[str, ...]) -> None:
    generations, samples = steps(*args)
    hf, tokenizer = GPT2LMHeadModel.from_pretrained(weights), load_tokenizer(weights)
    k = min(300, next(int(arg.partition("=")[2]) for arg in args if arg.startswith("decode.logprobs")))
    assert list(samples) == [(row["prompt_id"], row["sample"]) for row in generations]
    ranks_of_chosen = []
    for generation, sample in zip(generations, samples.values(), strict=True):
        assert [step[0]["step"] for step in sample] == [str(i) for i in range(int(generation["n_new_tokens"]))]
        ids, total = tokenizer.encode(generation["prompt"]), 0.0
        for step in sample:
            logprobs = hf(torch.tensor([ids[-64:]])).logits[0, -1].log_softmax(-1)
            (chosen,) = (row for row in step if row["chosen"] == "True")
            assert [int(row["rank"]) for row in step] == [*range(1, k + 1), *([int(chosen["rank"])] * (len(step) - k))]
            best = logprobs.topk(k)
            for row, value in zip(step, best.values.tolist(), strict=False):
                assert float(row["logprob"]) == pytest.approx(value, abs=2e-5)
            for row in step:
                assert float(row["logprob"]) == pytest.approx(logprobs[int(row["token_id"])].item(), abs=2e-5)
                assert row["token"] == tokenizer.decode([int(row["token_id"])])
            rank = int(chosen["rank"])
            assert rank == 1 + sum(float(logprob) > float(chosen["logprob"]) + 2e-5 for logprob in logprobs)
            assert len(step) == k + (rank > k)
            ranks_of_chosen.append(rank)
            ids.append(int(chosen["token_id"]))
            total += float(chosen["logprob"])
        assert total == pytest.approx(float(generation["logprob"]), rel=1e-6)
        new = ids[len(tokenizer.encode(generation["prompt"])) :]
        text = new[:-1] if generation["finish_reason"] == "eos" else new
        assert tokenizer.decode(text) == generation["completion"]
    if "decode=greedy" in args:
        assert set(ranks_of_chosen) == {1}
    elif k < 300:
        assert max(ranks_of_chosen) > k  # a token that is none of the likeliest was drawn


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        (("decode=greedy",), {1}),
        ((), {300}),
        (("decode.top_k=5",), {5}),
        (("decode.top_k=1",), {1}),
        (("decode.top_k=1000",), {300}),
        (("decode.top_p=1e-6",), {1}),
        (("decode.top_p=1.0",), {300}),
    ],
    ids=str,
)
def test_kept_is_what_the_filters_leave(steps: Steps, args: tuple[str, ...], kept: set[int]) -> None:
    _, samples = steps("decode.logprobs=2", *args)
    assert {int(row["kept"]) for sample in samples.values() for step in sample for row in step} == kept


def test_top_p_keeps_the_fewest_that_reach_it(steps: Steps) -> None:
    _, samples = steps("decode.logprobs=300", "decode.top_p=0.7", "decode.max_new_tokens=3")
    counts = Counter[int]()
    for step in (step for sample in samples.values() for step in sample):
        reached, expected = 0.0, 0
        while reached < 0.7:
            reached += math.exp(float(step[expected]["logprob"]))
            expected += 1
        assert {int(row["kept"]) for row in step} == {expected}
        counts[expected] += 1
    assert len(counts) > 3


def test_a_stop_string_is_in_the_tokens_and_not_in_the_text(steps: Steps) -> None:
    (free, *_), _ = steps("decode=greedy", "decode.logprobs=1")
    stop = free["completion"][3:5]
    (row, *_), samples = steps("decode=greedy", "decode.logprobs=1", f"decode.stop=['{stop}']")
    assert row["finish_reason"] == "stop"
    text = "".join(chosen["token"] for (chosen,) in samples["0", "0"])
    assert stop in text
    assert row["completion"] == text[: text.index(stop)]


def test_the_sweep_has_all_tokens(gpt2x: Cli, launch: Path, weights: Path) -> None:
    args = ("task=generate", f"weights.path={weights}", "prompt=or", "decode.max_new_tokens=3", "decode.logprobs=2")
    assert gpt2x("-m", *args, "seed=1,2", "hydra.sweep.dir=out").code == 0
    rows = read_csv(launch / "out" / "tokens.csv")
    assert list(rows[0]) == ["job", "seed", *COLUMNS]
    assert Counter(row["seed"] for row in rows if row["chosen"] == "True") == {"1": 3, "2": 3}
