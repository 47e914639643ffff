"""A sample depends on its seed, prompt and index alone, and is drawn from the filtered distribution."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2x.config.decode import DecodeConfig
from gpt2x.decoding.filters.warpers import filter_logits
from gpt2x.decoding.generate import Request, generate
from gpt2x.decoding.sampler import Sampler
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from tests.conftest import read_csv, run_dir

FEW = settings(deadline=None, derandomize=True, max_examples=25)


@pytest.fixture(scope="module")
def model() -> GPT2:
    """Over ASCII, in float64."""
    model = GPT2(GPT2Config(vocab_size=128, n_positions=32, n_embd=16, n_layer=2, n_head=2))
    model.init_weights(0)
    for parameter in model.parameters():
        parameter.detach().mul_(5)
    return model.double().eval()


DECODE = DecodeConfig(temperature=1.3, top_k=60, top_p=0.95, max_new_tokens=12)


def sample(model: GPT2, keys: list[tuple[str, int]], seed: int = 0, decode: DecodeConfig = DECODE):
    requests = [Request(list(text.encode()), text, index) for text, index in keys]
    found = dict(generate(model, requests, Sampler(decode, seed, None), batch_size=len(keys)))
    return [found[i].ids for i in range(len(keys))]


def pick(logits: torch.Tensor, sampler: Sampler, n: int = 1) -> torch.Tensor:
    """The n-th tokens of as many samples as there are logits [N, V]."""
    N = len(logits)
    uniforms = [list(islice(sampler.uniforms("prompt", index), n))[-1] for index in range(N)]
    return torch.tensor([pick.token for pick in sampler.pick(logits, [[]] * N, [0] * N, uniforms)])


KEYS = st.tuples(st.text(st.characters(codec="ascii"), min_size=1, max_size=15), st.integers(0, 1000))


@FEW
@given(key=KEYS, before=st.lists(KEYS, max_size=5), after=st.lists(KEYS, max_size=5), seed=st.integers(0, 2**40))
def test_a_sample_does_not_depend_on_its_batch(model, key, before, after, seed):
    """Whatever is beside it, and however long."""
    assert sample(model, [*before, key, *after], seed)[len(before)] == sample(model, [key], seed)[0]


@FEW
@given(batch=st.lists(KEYS, min_size=2, max_size=8), data=st.data())
def test_a_sample_does_not_depend_on_order_or_batch_size(model, batch, data):
    together = dict(zip(batch, sample(model, batch), strict=True))
    shuffled = data.draw(st.permutations(batch))
    size = data.draw(st.integers(1, len(batch)))
    pieces = [shuffled[i : i + size] for i in range(0, len(shuffled), size)]
    assert {key: ids for piece in pieces for key, ids in zip(piece, sample(model, piece), strict=True)} == together


def test_the_same_key_gives_the_same_sample_and_global_seeds_do_not_matter(model):
    torch.manual_seed(1)
    a = sample(model, [("a prompt", 3)])
    torch.manual_seed(2)
    assert sample(model, [("a prompt", 3)]) == a


def test_seeds_indices_and_prompts_give_different_random_numbers():
    """On equal logits, so that only the random numbers can differ."""
    logits = torch.zeros(1, 100_000)

    def picks(seed: int, prompt: str, index: int) -> tuple[int, ...]:
        sampler = Sampler(DecodeConfig(max_new_tokens=3), seed, None)
        uniforms = list(islice(sampler.uniforms(prompt, index), sampler.decode.max_new_tokens))
        return tuple(pick.token for pick in sampler.pick(logits.expand(3, -1), [[]] * 3, [0] * 3, uniforms))

    cases = [
        (seed, prompt, index)
        for seed in (0, 1, 2, 11, 2**40)
        for prompt in ("a", "b", "A", "a ", "1/a", "/1", "é")
        for index in (0, 1, 2, 11)
    ]
    drawn = {picks(*case) for case in cases}
    assert len(drawn) == len(cases)
    assert len({tokens[0] for tokens in drawn}) > 0.98 * len(cases)
    assert all(len(set(tokens)) == 3 for tokens in drawn)


def test_seeds_and_indices_give_different_samples(model):
    texts = [
        tuple(ids) for seed in range(5) for ids in sample(model, [("a prompt", index) for index in range(5)], seed)
    ]
    assert len(set(texts)) == 25


def generations(gpt2x, launch, tiny_dir, *args: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(prompt, sample) -> (completion, logprob to six digits) of one run."""
    folder = launch / "runs" / "generate"
    done = gpt2x(
        "task=generate",
        f"weights.path={tiny_dir}",
        "device=cpu",
        "decode.max_new_tokens=8",
        "decode.temperature=1.5",
        f"hydra.run.dir={folder / 'only'}",
        *args,
    )
    assert done.code == 0, done.err
    rows = read_csv(run_dir(launch, "generate") / "generations.csv")
    return {
        (row["prompt"], row["sample"]): (row["completion"], f"{float(row['logprob']):.5g}")  # rounding of other batches
        for row in rows
    }


def test_samples_of_the_command_line_stay_when_the_run_grows(gpt2x, launch, tiny_dir):
    prompts = ["to be", "or not to be that is", "q"]
    alone = generations(gpt2x, launch, tiny_dir, "prompt='q'", "decode.num_samples=2", "seed=3")
    some = generations(gpt2x, launch, tiny_dir, f"prompt={prompts}", "decode.num_samples=3", "seed=3", "batch_size=1")
    more = generations(
        gpt2x, launch, tiny_dir, f"prompt={prompts[::-1]}", "decode.num_samples=5", "seed=3", "batch_size=4"
    )
    other_seed = generations(gpt2x, launch, tiny_dir, f"prompt={prompts}", "decode.num_samples=3", "seed=4")
    assert [len(run) for run in (alone, some, more)] == [2, 9, 15]
    assert alone.items() <= some.items() <= more.items()
    assert len({completion for completion, _ in more.values()}) == 15
    assert not set(other_seed.values()) & set(some.values())


def chi_square(tokens: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Pearson's statistic over the tokens that can be drawn; infinite if another one was."""
    counts = tokens.bincount(minlength=len(probabilities)).double()
    possible = probabilities > 0
    if counts[~possible].any():
        return float("inf")
    expected = probabilities[possible] * len(tokens)
    return ((counts[possible] - expected) ** 2 / expected).sum().item()


def test_tokens_are_drawn_from_the_filtered_distribution():
    logits = torch.tensor([0.3, -1.0, 2.0, 1.1, 0.0, -0.4, 0.9, 1.4, -3.0, 0.7, 0.5, -2.0])
    decode = DecodeConfig(temperature=0.8, top_k=9, top_p=0.95)
    filtered = filter_logits(logits.double()[None], decode)[0].softmax(-1)
    N = 20_000
    first, second = (pick(logits.expand(N, -1), Sampler(decode, 0, None), n) for n in (1, 2))
    assert (filtered > 0).sum() == 7
    for tokens in (first, second):
        assert chi_square(tokens, filtered) < 22.46  # 6 degrees of freedom: 1 in 1000 is above
    pairs = first * len(logits) + second
    assert chi_square(pairs, torch.outer(filtered, filtered).flatten()) < 84.04  # 48 degrees of freedom
    # The test can tell: another temperature, and two draws that are one.
    warmer = filter_logits(logits.double()[None], replace(decode, temperature=0.9))[0].softmax(-1)
    assert chi_square(first, warmer) > 50
    assert chi_square(first * len(logits) + first, torch.outer(filtered, filtered).flatten()) > 1000


@FEW
@given(
    logits=st.lists(st.floats(-50, 50, width=32) | st.just(float("-inf")), min_size=1, max_size=20).filter(
        lambda row: max(row) > float("-inf")
    ),
    temperature=st.floats(0.05, 5),
    top_k=st.none() | st.integers(1, 25),
    top_p=st.none() | st.floats(0.01, 1),
)
def test_tokens_of_probability_zero_are_never_drawn(logits, temperature, top_k, top_p):
    decode = DecodeConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    rows = torch.tensor(logits).expand(200, -1)
    probabilities = filter_logits(rows[:1].double(), decode).softmax(-1)[0]
    tokens = pick(rows, Sampler(decode, 0, None))
    assert (probabilities[tokens] > 0).all()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53], ids=["smallest", "largest"])
def test_extreme_random_numbers_draw_a_possible_token(monkeypatch, uniform):
    """Zero-probability tokens at both ends, where a lookup that is off by one would go."""
    monkeypatch.setattr(torch, "rand", lambda *size, dtype, **_: torch.full(size, uniform, dtype=dtype))
    rows = torch.full((1, 50), -torch.inf)
    rows[0, 20:30] = torch.linspace(-3, 3, 10)
    token = pick(rows, Sampler(DecodeConfig(), 0, None)).item()
    assert token == (20 if uniform == 0 else 29)


def test_rounding_in_the_logits_hardly_ever_moves_a_pick():
    """Half of a large vocabulary gets likelier by 1e-5: a search in its cumulative distribution moves every tenth."""
    logits = torch.randn(1, 50_257, generator=torch.Generator().manual_seed(0)).expand(200, -1)
    rounded = logits.clone()
    rounded[:, :25_000] += 1e-5
    sampler = Sampler(DecodeConfig(), 0, None)
    assert torch.equal(pick(logits, sampler), pick(rounded, sampler))
