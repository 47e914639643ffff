"""Stop strings: where a text ends, and what of it can be shown before that is known."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2x.decoding.stop import StopStrings
from gpt2x.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from gpt2x.visible import visible
from tests.conftest import NANO, Cli, read_csv

BYTES = train_tokenizer("", 257)  # <|endoftext|>, and then one token per byte
NANO_TOKENS = load_tokenizer(NANO)


def naive(ids: list[int], stops: list[str], tokenizer: Tokenizer) -> tuple[int, int] | None:
    """Tokens until any stop string is in the text, and where the first of them then begins."""
    for n in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:n])
        found = [text.index(stop) for stop in stops if stop in text]
        if found:
            return n, min(found)
    return None


def first_stop(ids: list[int], stops: list[str], tokenizer: Tokenizer) -> tuple[int, int] | None:
    stop = StopStrings(stops, tokenizer.decode)
    ends = ((n, stop.find(ids[:n])) for n in range(1, len(ids) + 1))
    return next(((n, end) for n, end in ends if end is not None), None)


@pytest.mark.parametrize("tokenizer", [BYTES, NANO_TOKENS], ids=["bytes", "nano"])
@pytest.mark.parametrize(
    ("text", "stops", "end"),
    [
        ("one. two. three", [". "], 3),
        ("one. two", ["one"], 0),
        ("o", ["o"], 0),
        ("one", ["one, and more"], None),
        ("one two three", ["three", "two"], 4),
        ("one two three", ["e two th", "two"], 4),  # known to be there two characters earlier
        ("one two thr", ["e two th", "two thr"], 2),
        ("aaab", ["aab"], 1),
        ("ababac", ["abac"], 2),
        ("caf\u00e9, \u00e9t\u00e9", ["\u00e9"], 3),
        ("smile 😀😃", ["😃"], 7),
        ("家族👩‍👩‍👧!", ["👩‍👧"], 4),
        ("line\n\nnext", ["\n\n"], 4),
        ("one", [], None),
    ],
)
def test_the_text_ends_where_the_first_stop_begins(
    tokenizer: Tokenizer, text: str, stops: list[str], end: int | None
) -> None:
    found = first_stop(tokenizer.encode(text), stops, tokenizer)
    assert (found and found[1]) == end
    assert found == naive(tokenizer.encode(text), stops, tokenizer)


def test_a_stop_inside_one_token() -> None:
    (token,) = NANO_TOKENS.encode(" the")
    assert first_stop([token], ["h"], NANO_TOKENS) == (1, 2)


pieces = st.sampled_from(["a", "b", "ab", " ", "\n", "é", "ê", "😀", "😃", "the", " the", "\u2028", "e\u0301"])
texts = st.lists(pieces, min_size=1, max_size=12).map("".join)
stops = st.lists(st.lists(pieces, min_size=1, max_size=3).map("".join), min_size=1, max_size=3)


@settings(max_examples=300, deadline=None)
@given(text=texts, stops=stops, tokenizer=st.sampled_from([BYTES, NANO_TOKENS]))
def test_a_text_ends_as_if_all_of_it_were_searched_each_time(text: str, stops: list[str], tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(text)
    assert first_stop(ids, stops, tokenizer) == naive(ids, stops, tokenizer)


def token_of(byte: int) -> int:
    """BYTES' token of a byte: GPT-2 gives those that can be printed first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return 1 + [*printable, *(byte for byte in range(256) if byte not in printable)].index(byte)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*b"ab ", *"é😀".encode(), 0xE2, 0x80, 0xFF]), max_size=20), stops)
def test_bytes_that_are_no_text_change_nothing(text: list[int], stops: list[str]) -> None:
    ids = [token_of(byte) for byte in text]
    assert BYTES.decode(ids) == bytes(text).decode(errors="replace")
    assert first_stop(ids, stops, BYTES) == naive(ids, stops, BYTES)


@pytest.mark.parametrize(
    ("text", "stops", "visible"),
    [
        ("one", ["two"], 3),
        ("one t", ["two"], 4),
        ("one tw", ["two"], 4),
        ("one two", ["two"], 4),
        ("one two three", ["two"], 4),
        ("aa", ["aab"], 0),
        ("aaa", ["aab"], 1),
        ("xab", ["abc", "bd"], 1),
        ("xab", ["bd", "abc"], 1),
        ("xb", ["abc", "bd"], 1),
        ("one", [], 3),
        ("", ["a"], 0),
        ("o", ["o"], 0),
    ],
)
def test_what_may_become_a_stop_is_held_back(text: str, stops: list[str], visible: int) -> None:
    assert StopStrings(stops, BYTES.decode).visible(text) == visible


@settings(max_examples=300, deadline=None)
@given(text=texts, stops=stops)
def test_what_is_shown_is_never_taken_back(text: str, stops: list[str]) -> None:
    """Character by character: never more than the stop will leave, and no more held back than it takes."""
    stop = StopStrings(stops, BYTES.decode)
    shown = 0
    for n in range(len(text) + 1):
        visible = stop.visible(text[:n])
        assert shown <= visible
        shown = visible
        if any(string in text[:n] for string in stops):
            assert visible == min(text[:n].find(string) for string in stops if string in text[:n])
            break
        held = text[visible:n]
        assert held == "" or any(string.startswith(held) for string in stops)


def run(gpt2x: Cli, launch: Path, *args: str) -> tuple[dict[str, str], str]:
    """The only row, and the console."""
    result = gpt2x("task=generate", "hydra.run.dir=out", *args)
    assert (result.code, result.warnings) == (0, "")
    (row,) = read_csv(launch / "out" / "generations.csv")
    return row, result.out


LINE = ("prompt=Now", "decode=greedy", "decode.max_new_tokens=40")


def quoted(text: str) -> str:
    """For Hydra: a backslash is doubled before a quote alone."""
    return '"' + re.sub(r'(\\*)("|\Z)', lambda m: 2 * m[1] + m[2].replace('"', '\\"'), text) + '"'


def test_completions_end_before_every_stop_there_is(gpt2x: Cli, launch: Path) -> None:
    """Each piece of 1 to 8 characters of a completion, as the stop string of another run."""
    free, _ = run(gpt2x, launch, *LINE)
    text = free["completion"]
    assert (free["finish_reason"], free["n_new_tokens"], free["stop"]) == ("length", "40", "")
    tokens = NANO_TOKENS.encode("Now" + text)[1:]
    chosen = random.Random(0).sample(range(len(text) - 8), 8)
    for length, start in enumerate(chosen, 1):
        stop = text[start : start + length]
        row, console = run(gpt2x, launch, *LINE, f"decode.stop={quoted(stop)}")
        assert row["completion"] == text[: text.index(stop)]
        assert row["finish_reason"] == "stop"
        n_tokens = int(row["n_new_tokens"])
        assert naive(tokens, [stop], NANO_TOKENS) == (n_tokens, text.index(stop))
        assert float(row["logprob"]) >= float(free["logprob"])
        assert console == "Now" + row["completion"] + "\n"


def test_the_first_of_several_stops(gpt2x: Cli, launch: Path) -> None:
    free, _ = run(gpt2x, launch, *LINE)
    text = free["completion"]
    late, early, absent = text[20:24], text[9:13], "never in it"
    stops = ",".join(map(quoted, (late, absent, early)))
    row, console = run(gpt2x, launch, *LINE, f"decode.stop=[{stops}]")
    assert row["completion"] == text[: min(text.index(late), text.index(early))]
    assert console == "Now" + row["completion"] + "\n"
    row, console = run(gpt2x, launch, *LINE, f"decode.stop={quoted(text[-3:] + 'x')}")
    assert (row["completion"], row["finish_reason"]) == (text, "length")
    assert console == "Now" + text + "\n"


@pytest.mark.parametrize("seed", range(8))
def test_any_text_reaches_the_console(gpt2x: Cli, launch: Path, tiny_dir: Path, seed: int) -> None:
    """Random weights: bytes that are no text, tabs, control characters; with a stop that many of them begin."""
    args = (f"weights.path={tiny_dir}", 'prompt="\tto be\\, or"', "decode.max_new_tokens=50", f"seed={seed}")
    stop = () if seed % 2 else ("decode.stop=[to be or not to be,' x',says]",)
    row, console = run(gpt2x, launch, *args, *stop)
    assert console == visible(row["prompt"] + row["completion"]) + "\n"
