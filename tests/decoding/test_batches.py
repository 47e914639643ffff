"""Batches that refill, lookup and sliding windows: none of them changes a text."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2x.config.decode import DecodeConfig
from gpt2x.decoding import engine
from gpt2x.decoding import generate as decoding
from gpt2x.decoding.generate import Completion
from gpt2x.decoding.search.lookup import Lookup
from gpt2x.decoding.stop import StopStrings
from gpt2x.model.gpt2 import GPT2
from gpt2x.tokenizer import train_tokenizer
from tests.conftest import NANO, tiny_hf
from tests.decoding.test_generation import complete, hf_greedy, load, pair

GREEDY = DecodeConfig(greedy=True)


def prompts_of(*lengths: int, tokens: int = 300) -> list[list[int]]:
    drawn = random.Random(0)
    return [[drawn.randrange(tokens) for _ in range(length)] for length in lengths]


RAGGED = prompts_of(1, 40, 2, 2, 17, 1, 5, 33, 8, 40, 3, 12, 7, 1, 21, 9, 30, 2)
REPEATED = [prompt for prompt in RAGGED[:8] for _ in range(3)]  # equal ones side by side


@pytest.fixture
def exact(tmp_path: Path) -> tuple[GPT2, Any]:
    """The same model twice, ours and transformers', in float64."""
    _, hf = pair(tmp_path)
    return load(tmp_path, torch.float64).model, hf.double()


def texts(completions: list[Completion]) -> list[tuple[list[int], str, int | None]]:
    return [(completion.ids, completion.finish_reason, completion.text_length) for completion in completions]


def common_token(completions: list[Completion]) -> int:
    """One that, as the end of text, ends some texts early, some late and some not at all."""
    ends = {
        token: [len(c.ids) if token not in c.ids else c.ids.index(token) for c in completions]
        for token in {token for c in completions for token in c.ids}
    }
    token = max(ends, key=lambda token: len(set(ends[token])))
    assert len(set(ends[token])) > 3
    return token


@pytest.mark.parametrize("decode", [GREEDY, DecodeConfig(), DecodeConfig(top_p=0.9, temperature=0.8)], ids=str)
@pytest.mark.parametrize("prompts", [RAGGED, REPEATED], ids=["ragged", "repeated"])
def test_neither_batch_size_nor_order_changes_a_text(
    exact: tuple[GPT2, Any], prompts: list[list[int]], decode: DecodeConfig
) -> None:
    ours, _ = exact
    decode = replace(decode, max_new_tokens=24)
    eos = common_token(complete(ours, prompts, decode, batch_size=1))
    alone = texts(complete(ours, prompts, decode, eos, batch_size=1))
    assert {reason for _, reason, _ in alone} == {"eos", "length"}
    for batch_size in (2, 3, 4, 8, 64):
        assert texts(complete(ours, prompts, decode, eos, batch_size=batch_size)) == alone
    for order in (list(reversed(range(len(prompts)))), random.Random(1).sample(range(len(prompts)), len(prompts))):
        shuffled = complete(ours, [prompts[i] for i in order], decode, eos, batch_size=4)
        assert texts(shuffled) == [alone[i] for i in order]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_each_text_is_transformers(exact: tuple[GPT2, Any], batch_size: int) -> None:
    ours, hf = exact
    decode = replace(GREEDY, max_new_tokens=24)
    eos = common_token(complete(ours, RAGGED, decode))
    for prompt, found in zip(RAGGED, complete(ours, RAGGED, decode, eos, batch_size=batch_size), strict=True):
        assert found.ids == hf_greedy(hf, prompt, 24, eos)


def test_prompts_that_fill_the_context(exact: tuple[GPT2, Any]) -> None:
    ours, hf = exact
    prompts = prompts_of(63, 1, 62, 63, 30, 63)
    for prompt, found in zip(prompts, complete(ours, prompts, replace(GREEDY, max_new_tokens=1)), strict=True):
        assert found.ids == hf_greedy(hf, prompt, 1)


def test_rows_that_end_make_room(exact: tuple[GPT2, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """18 texts, three at a time: the passes have three rows while there is work for three, and no token is wasted."""
    ours, _ = exact
    decode = replace(GREEDY, max_new_tokens=24)
    eos = common_token(complete(ours, RAGGED, decode))
    rows: list[int] = []

    def counted(model: GPT2, tokens: list[int], cache: Any) -> Any:
        rows.append(len(tokens))
        return engine.decode_one_token(model, tokens, cache)

    monkeypatch.setattr(decoding, "decode_one_token", counted)
    found = complete(ours, RAGGED, decode, eos, batch_size=3)
    n_tokens = sum(len(completion.ids) for completion in found)
    assert sum(rows) == n_tokens - len(RAGGED)  # the first token of each comes of its prompt
    assert rows == sorted(rows, reverse=True)
    assert rows.count(3) > 0.75 * len(rows)


def naive(hf: Any, prompt: list[int], new: int, eos: int | None) -> list[int]:
    """Greedily from the last n_positions tokens, all of them computed anew for each token."""
    ids = list(prompt)
    with torch.inference_mode():
        while len(ids) < len(prompt) + new and eos not in ids[len(prompt) :]:
            ids.append(int(hf(torch.tensor([ids[-64:]])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("lookup", [False, True], ids=["plain", "lookup"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_window_slides(exact: tuple[GPT2, Any], batch_size: int, lookup: bool) -> None:
    ours, hf = exact
    prompts = prompts_of(63, 1, 64, 65, 60, 64, 200, 40, 63)
    decode = replace(GREEDY, max_new_tokens=30, on_overflow="crop", lookup=lookup)
    free = complete(ours, prompts, decode)
    eos = common_token(free)
    for prompt, first in zip(prompts, free, strict=True):
        assert first.ids == naive(hf, prompt, 30, None)
    for prompt, found in zip(prompts, complete(ours, prompts, decode, eos, batch_size=batch_size), strict=True):
        assert found.ids == naive(hf, prompt, 30, eos)


@pytest.fixture(scope="module")
def nano() -> Any:
    return load(NANO, torch.float64)


PHRASE = "To be, or not to be: that is the question. "
TEXTS = [PHRASE * 3, "O", "Who's there? " * 6 + "Nay", PHRASE, "KING:\nI\n\nKING:\nI\n\nKING:", "and " * 20]
LOOKUPS = [
    GREEDY,
    DecodeConfig(),
    DecodeConfig(temperature=0.3),
    replace(GREEDY, on_overflow="crop"),
    DecodeConfig(top_k=2, on_overflow="crop"),
]


@pytest.mark.parametrize("decode", LOOKUPS, ids=str)
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("stops", [[], [" th", "ing"]], ids=["", "stop"])
def test_lookup_changes_nothing(nano: Any, decode: DecodeConfig, batch_size: int, stops: list[str]) -> None:
    prompts = [nano.tokenizer.encode(text) for text in TEXTS] + prompts_of(1, 9, 30, tokens=1024)
    n_positions = nano.model.config.n_positions
    room = n_positions - max(map(len, prompts))  # so that one of them ends where the context does
    new = 60 if decode.on_overflow == "refuse" else room + 20
    assert new <= room or decode.on_overflow == "crop"
    stop = StopStrings(stops, nano.tokenizer.decode)
    settings = {"stop": stop, "batch_size": batch_size, "eos_id": nano.tokenizer.encode(",")[0]}
    off, on = (
        complete(nano.model, prompts, replace(decode, max_new_tokens=new, lookup=lookup), **settings)
        for lookup in (False, True)
    )
    assert texts(on) == texts(off)
    for with_it, without in zip(on, off, strict=True):
        assert with_it.logprob == pytest.approx(without.logprob, rel=1e-5, abs=1e-5)


@pytest.fixture
def repeating(tmp_path: Path) -> tuple[GPT2, Any]:
    """Fresh weights, which say the same for ever: all guesses are right."""
    hf = tiny_hf()
    hf.save_pretrained(tmp_path)
    train_tokenizer("", 257).save(tmp_path)
    return load(tmp_path, torch.float64).model, hf.double()


@pytest.mark.parametrize("batch_size", [1, 3, 4])
@pytest.mark.parametrize("new", [1, 2, 3, 17, 50])
def test_lookup_to_the_end_of_the_context(repeating: tuple[GPT2, Any], new: int, batch_size: int) -> None:
    ours, hf = repeating
    prompts = [prompt[: 64 - new] for prompt in (*prompts_of(1, 63, 30, 14, 3), [5, 6, 7, 8] * 16, [9] * 63)]
    decode = replace(GREEDY, max_new_tokens=new, lookup=True)
    for prompt, found in zip(prompts, complete(ours, prompts, decode, batch_size=batch_size), strict=True):
        assert found.ids == hf_greedy(hf, prompt, new)


Passes = list[tuple[int, int]]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Rows and tokens of each forward pass after the prompts'."""
    seen: Passes = []

    def counted(model: GPT2, tokens: list[list[int]], cache: Any, original: Any = engine.verify) -> Any:
        seen.append((len(tokens), max(map(len, tokens))))
        return original(model, tokens, cache)

    monkeypatch.setattr(engine, "verify", counted)
    monkeypatch.setattr(decoding, "verify", counted)
    return seen


@pytest.mark.parametrize("batch_size", [1, 4])
def test_lookup_saves_passes_on_a_text_that_repeats(
    repeating: tuple[GPT2, Any], passes: Passes, batch_size: int
) -> None:
    ours, hf = repeating
    prompts = prompts_of(1, 4, 9, 2)
    found = complete(ours, prompts, replace(GREEDY, max_new_tokens=50, lookup=True), batch_size=batch_size)
    assert [completion.ids for completion in found] == [hf_greedy(hf, prompt, 50) for prompt in prompts]
    assert len(passes) < 4 * 50 / batch_size / 3
    assert {rows for rows, _ in passes} <= set(range(1, batch_size + 1))
    assert max(tokens for _, tokens in passes) >= (16 if batch_size == 1 else 8)
    assert all(rows * tokens <= 32 for rows, tokens in passes)


def test_without_lookup_a_pass_is_a_token(repeating: tuple[GPT2, Any], passes: Passes) -> None:
    complete(repeating[0], prompts_of(4), replace(GREEDY, max_new_tokens=50))
    assert passes == [(1, 1)] * 49


def decode_with(lookup: Lookup, ids: list[int], start: int) -> tuple[int, int]:
    """Passes it takes from ids[:start] to all of them, and drafts of which nothing was right."""
    passes = wrong = 0
    while start < len(ids):
        draft = lookup.draft(ids[:start], 15)
        right = next((i for i, (a, b) in enumerate(zip(draft, ids[start:], strict=False)) if a != b), len(draft))
        right = min(right, len(ids) - start)
        lookup.learn(len(draft), right)
        start, passes, wrong = start + right + 1, passes + 1, wrong + (bool(draft) and not right)
    return passes, wrong


def misleading(n: int) -> list[int]:
    """A text in which the same three tokens come again and again, each time with another follower."""
    return [token for i in range(n) for token in (1, 2, 3, 1000 + i)]


def test_lookup_gives_up_guesses_that_fail() -> None:
    passes, wrong = decode_with(Lookup(), misleading(2000), 20)
    assert passes == 8000 - 20
    assert 0 < wrong < 0.03 * passes


def test_lookup_takes_heart_again() -> None:
    """After misleading tokens a text that repeats: soon as fast as if they had not been."""
    tail = list(range(20)) * 50
    lookup = Lookup()
    decode_with(lookup, misleading(500), 20)
    after, _ = decode_with(lookup, misleading(500) + tail, 2000)
    plain, _ = decode_with(Lookup(), tail, 20)
    assert plain < 1000 / 12
    assert plain <= after < plain + 20 + 64 + 3


def test_one_wrong_guess_among_right_ones_costs_one_pass() -> None:
    lookup, ids = Lookup(), [1, 2, 3] * 3
    for accepted in (0, 0, 0, 15, 0):
        lookup.learn(15, accepted)
    assert [bool(lookup.draft(ids, 15)) for _ in range(2)] == [False, True]


def test_drafts_leave_room() -> None:
    lookup = Lookup()
    ids = list(range(30)) * 2
    assert lookup.draft(ids, 0) == []
    assert lookup.draft(ids, 2) == [0, 1]
    assert lookup.draft([7], 4) == []


def test_guesses_get_longer_while_they_are_right() -> None:
    lookup, lengths = Lookup(), []
    for _ in range(5):
        lengths.append(len(lookup.draft(list(range(30)) * 2, 99)))
        lookup.learn(lengths[-1], lengths[-1])
    assert lengths == [3, 7, 15, 15, 15]
    lookup.learn(15, 0)
    assert lookup.draft(list(range(30)) * 2, 99) == []
    assert len(lookup.draft(list(range(30)) * 2, 99)) == 3
