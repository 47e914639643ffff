"""The tokenizer against transformers' and tiktoken's, over the same vocabulary."""

import hashlib
from pathlib import Path

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from transformers import GPT2TokenizerFast

from gpt2x.errors import UserError
from gpt2x.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from tests.conftest import NANO, REPO

GPT2_DIR = REPO / "data" / "gpt2"

UGLY = {
    "empty": "",
    "space": " ",
    "prose": "The quick brown fox jumps over the lazy dog.",
    "contractions": "I'm you're he'll we've they'd it's CAN'T DON'T don\u2019t 'tis rock'n'roll 's 'S '",
    "numbers": "3.14159, 1,000,000; 0x7f 2026-11-23 007 1234567890123456789012345678901234567890 ½ ² Ⅷ ٣",
    "spaces": "  two,   three,    four     ! " + " " * 1000 + "x" + " " * 33,
    "tabs": "\tone\t\ttwo \t three\t \tfour\t",
    "newlines": "\n\na\nb\n\n\nc\r\nd\r\n\r\n e \n \n\n" + "\n" * 500,
    "odd spaces": "no-break\u00a0 ideographic\u3000 line\u2028separator, next\u0085line, zero\u200bwidth, BOM \ufeff",
    "accents": "naïve café Ångström, decomposed: e\u0301 n\u0303 a\u0308\u0323, ligature ﬁ, long \u017f, ß ẞ İ \u0131",
    "emoji": "😀 👩‍👩‍👧‍👦🏳️‍🌈 👍🏽👨🏿‍🚀 🇦🇶 1️⃣ ☺️☺",
    "CJK": "漢字かな交じり文。　전각　ｶﾀｶﾅ 한국어 中文字符\uff0c𠮷野家",
    "right to left": "العَرَبِيَّة ٱلْفُصْحَىٰ, עִבְרִית \u202eabc\u202c",
    "Indic and Thai": "हिन्दी क्षत्रिय தமிழ் ภาษาไทย ꦗꦮ",
    "zalgo": "Z\u0335\u0321\u0301a\u0336\u0322\u034fl\u0337\u0323\u0302g\u0338\u0327\u0303o",
    "controls": "NUL \x00\x00 bell \x07 escape \x1b[0m delete \x7f C1 \x80\x9f",
    "noncharacters": "\ufffd \ufffe \uffff \U0010ffff \ue000 private",
    "special": "before<|endoftext|>after <|endoftext|> <|endoftext|><|endoftext|>\n<|endoftext|>",
    "nearly special": "<|endoftext <|endoftext|| <|EndOfText|> |endoftext|> <| endoftext |>",
    "code": "def f(x):\n    return {'a': [x**2, ~x]}  # ^%$#@!\n\n\t}//*/;--><!--\\n",
    "100 kB in one line": ("The 42 naïve 漢字, don't\tstop 😀  " * 3000)[:100_000],
    "100 kB in one word": "antidisestablishmentarianism" * 3600,
}
UGLY_TEXTS = pytest.mark.parametrize("text", UGLY.values(), ids=UGLY.keys())


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return load_tokenizer(GPT2_DIR)


@pytest.fixture(scope="module")
def hf() -> GPT2TokenizerFast:
    return GPT2TokenizerFast.from_pretrained(GPT2_DIR, local_files_only=True)


@pytest.fixture(scope="module")
def openai() -> tiktoken.Encoding:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # else a copy in /tmp, perhaps an old one, is read
        ranks = data_gym_to_mergeable_bpe_ranks(str(GPT2_DIR / "merges.txt"), str(GPT2_DIR / "vocab.json"))
    return tiktoken.Encoding(
        "gpt2",
        pat_str=r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 50256},
        explicit_n_vocab=50257,
    )


@pytest.mark.parametrize(
    ("file", "sha256"),
    [
        ("vocab.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
        ("merges.txt", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
    ],
)
def test_vocabulary_files_are_openais(file, sha256):
    assert hashlib.sha256((GPT2_DIR / file).read_bytes()).hexdigest() == sha256


def test_openais_licence_is_beside_the_vocabulary():
    text = (GPT2_DIR / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("Modified MIT License")
    assert "Copyright (c) 2019 OpenAI" in text
    assert "WITHOUT WARRANTY OF ANY KIND" in text


def test_known_ids(ours):
    assert ours.encode("Hello, I'm a language model,") == [15496, 11, 314, 1101, 257, 3303, 2746, 11]
    assert ours.encode("<|endoftext|>") == [50256]
    assert (ours.vocab_size, ours.eos_id) == (50257, 50256)


@UGLY_TEXTS
def test_ids_of_ugly_texts_equal_transformers_and_tiktoken(ours, hf, openai, text):
    ids = ours.encode(text)
    assert ids == hf(text)["input_ids"]
    assert ids == openai.encode(text, allowed_special="all")


@UGLY_TEXTS
def test_ugly_texts_come_back(ours, text):
    assert ours.decode(ours.encode(text)) == text


@settings(deadline=None, derandomize=True, max_examples=300)
@given(text=st.text())
@example(text="<|endoftext|> a")
def test_ids_of_any_text_equal_transformers_and_tiktoken(ours, hf, openai, text):
    ids = ours.encode(text)
    assert ids == hf(text)["input_ids"]
    assert ids == openai.encode(text, allowed_special="all")
    assert ours.decode(ids) == text


@settings(deadline=None, derandomize=True, max_examples=200)
@given(ids=st.lists(st.integers(0, 50256), max_size=20))
def test_any_ids_decode_as_in_transformers_and_tiktoken(ours, hf, openai, ids):
    """Half characters included."""
    text = ours.decode(ids)
    assert text == hf.decode(ids, clean_up_tokenization_spaces=False)
    assert text == openai.decode(ids)


# A stream cannot tell U+FFFD in the text from the sign of half a character, and waits.
WHOLE = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(text=WHOLE)
@example(text=UGLY["emoji"])
@example(text=UGLY["CJK"])
@example(text=" 👩‍👩‍👧‍👦<|endoftext|>\x00e\u0301\r\n")
def test_streamed_pieces_join_to_the_text(ours, text):
    stream = ours.stream()
    assert "".join(stream(token) for token in ours.encode(text)) == text


def test_stream_waits_for_whole_characters(ours):
    ids = ours.encode("😀!")
    assert len(ids) == 3
    assert list(map(ours.stream(), ids)) == ["", "😀", "!"]


@UGLY_TEXTS
def test_tokenizer_json_gives_the_same_ids(ours, tokenizer_json_dir, text):
    assert load_tokenizer(tokenizer_json_dir).encode(text) == ours.encode(text)


@pytest.fixture(scope="module")
def tokenizer_json_dir(hf, tmp_path_factory) -> Path:
    """What transformers saves, less vocab.json and merges.txt if it writes them."""
    folder = tmp_path_factory.mktemp("json")
    hf.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    assert (folder / "tokenizer.json").is_file()
    return folder


def test_tokenizer_json_gives_the_same_special_token(ours, tokenizer_json_dir):
    other = load_tokenizer(tokenizer_json_dir)
    assert (other.vocab_size, other.eos_id) == (ours.vocab_size, ours.eos_id)


def test_padding_and_truncation_in_tokenizer_json_are_off(ours, hf, tmp_path):
    # A copy: the fixture stays as it is.
    backend = type(hf.backend_tokenizer).from_str(hf.backend_tokenizer.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    backend.save(str(tmp_path / "tokenizer.json"))
    text = UGLY["prose"]
    assert load_tokenizer(tmp_path).encode(text) == ours.encode(text)


CORPUS = " ".join(f"To be, or not to be: that's question {i * i}.\n" for i in range(300))


@pytest.mark.parametrize("size", [257, 258, 300, 400])
def test_trained_vocabulary_has_the_size_asked_for(size):
    tokenizer = train_tokenizer(CORPUS, size)
    assert tokenizer.vocab_size == size
    assert tokenizer.eos_id == 0
    assert tokenizer.encode("<|endoftext|>") == [0]
    assert 0 not in tokenizer.encode(CORPUS)
    assert max(tokenizer.encode(CORPUS)) < size


def test_training_is_deterministic_and_compresses():
    a, b = (train_tokenizer(CORPUS, 400).encode(CORPUS) for _ in range(2))
    assert a == b
    assert len(a) < len(CORPUS) / 2


@UGLY_TEXTS
def test_trained_tokenizer_writes_any_text(trained, text):
    assert trained.decode(trained.encode(text)) == text


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(CORPUS, 300)


def test_trained_tokenizer_saved_is_read_alike_by_us_and_transformers(trained, tmp_path):
    trained.save(tmp_path)
    again, theirs = load_tokenizer(tmp_path), GPT2TokenizerFast.from_pretrained(tmp_path, local_files_only=True)
    for text in [CORPUS, *UGLY.values()]:
        ids = trained.encode(text)
        assert again.encode(text) == ids
        assert theirs(text)["input_ids"] == ids


@pytest.mark.parametrize(("text", "size"), [("too short", 300), (CORPUS, 256), ("", 258)])
def test_vocabulary_that_a_text_cannot_fill_is_refused(text, size):
    with pytest.raises(UserError, match=f"model.vocab_size={size}"):
        train_tokenizer(text, size)


def test_bundled_tokenizer_equals_transformers():
    ours, theirs = load_tokenizer(NANO), GPT2TokenizerFast.from_pretrained(NANO, local_files_only=True)
    for text in UGLY.values():
        ids = ours.encode(text)
        assert ids == theirs(text)["input_ids"]
        assert ours.decode(ids) == text


@pytest.mark.parametrize("files", [{}, {"merges.txt": "#version: 0.2\n"}, {"tokenizer.json": "{"}], ids=str)
def test_unreadable_tokenizer_is_the_users_to_mend(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="its tokenizer cannot be read"):
        load_tokenizer(tmp_path)
