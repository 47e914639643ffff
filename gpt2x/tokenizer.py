"""Byte-level BPE, by the package `tokenizers`: GPT-2's vocabulary, that of a checkpoint, or one trained here."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.paths import shown

END_OF_TEXT = "<|endoftext|>"


class Tokenizer:
    """Converts text to token ids and back. Special tokens in a text, such as `<|endoftext|>`, are what they stand for.

    `end_of_text` is the token that ends a text.
    """

    def __init__(self, backend: tokenizers.Tokenizer, end_of_text: str = END_OF_TEXT) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.end_of_text = end_of_text
        self.vocab_size: int = backend.get_vocab_size()
        self.eos_id: int | None = backend.token_to_id(end_of_text)

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text).ids

    def fewest_tokens(self, text: str) -> int:
        """How many tokens a text has at least, found without encoding it; 0 if the tokenizer changes texts first."""
        is_kept = isinstance(self.backend.pre_tokenizer, tokenizers.pre_tokenizers.ByteLevel)
        return -(-len(text) // self._longest) if is_kept and self.backend.normalizer is None else 0

    @cached_property
    def _longest(self) -> int:
        """A token stands for at most this many characters: byte-level vocabularies have one character per byte."""
        return max(map(len, self.backend.get_vocab()))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens. Bytes that are not UTF-8 (a part of a character, for example) become U+FFFD."""
        return self.backend.decode(list(ids), skip_special_tokens=False)

    def n_bytes(self, id: int) -> int:
        """The number of UTF-8 bytes that a token stands for, which may be a part of a character."""
        return len(self.backend.id_to_token(id) or "")  # byte-level BPE writes each byte as one character

    def stream(self) -> Callable[[int], str]:
        """A function from each new token to the text that it completes: '' while a character is incomplete."""
        decoder = tokenizers.decoders.DecodeStream(skip_special_tokens=False)
        return lambda token: decoder.step(self.backend, token) or ""

    def save(self, directory: Path) -> None:
        """Writes tokenizer_config.json, and vocab.json with merges.txt, which transformers can read too.

        A tokenizer that is more than a vocabulary and merges is written as tokenizer.json. Raises UserError if a file
        cannot be written.
        """
        try:
            if self._is_plain:
                self.backend.model.save(str(directory))
                config = {"tokenizer_class": "GPT2Tokenizer"}
            else:
                self.backend.save(str(directory / "tokenizer.json"))
                config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": self.end_of_text}
            (directory / "tokenizer_config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")
        except Exception as error:  # tokenizers, written in Rust, raises no class of its own
            if is_out_of_memory(error):
                raise
            raise UserError(f"cannot write the tokenizer into {shown(directory)}: {error}") from None

    @property
    def _is_plain(self) -> bool:
        """Whether it is GPT-2's pipeline around a vocabulary, with no special token but <|endoftext|>."""
        parts, plain = (json.loads(each.to_str()) for each in (self.backend, _byte_level(tokenizers.models.BPE())))
        added = [token["content"] for token in parts.pop("added_tokens")]
        for each in (parts, plain):
            for key in ("model", "added_tokens", "truncation", "padding"):
                each.pop(key, None)
        return self.end_of_text == END_OF_TEXT and added in ([], [END_OF_TEXT]) and parts == plain


def load_tokenizer(directory: Path) -> Tokenizer:
    """Reads tokenizer.json, or else vocab.json with merges.txt and added_tokens.json; UserError if it cannot be read.

    The token that ends a text is the one that tokenizer_config.json or special_tokens_map.json names, or else
    <|endoftext|>.
    """
    try:
        if (directory / "tokenizer.json").is_file():
            backend = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        else:
            bpe = tokenizers.models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt"))
            backend = _byte_level(bpe)
            added: dict[str, int] = _object(directory / "added_tokens.json")
            backend.add_special_tokens(sorted(added, key=lambda token: added[token]))
        return Tokenizer(backend, _end_of_text(directory))
    except Exception as error:  # tokenizers, written in Rust, raises no class of its own
        if is_out_of_memory(error):
            raise
        raise UserError(f"{shown(directory)}: its tokenizer cannot be read: {error}") from None


def _end_of_text(directory: Path) -> str:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _object(directory / name).get("eos_token")
        if isinstance(token, dict):  # with its properties
            token = token.get("content")
        if isinstance(token, str):
            return token
    return END_OF_TEXT


def _object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file, or something else in it."""
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content if isinstance(content, dict) else {}


def train_tokenizer(text: str, vocab_size: int) -> Tokenizer:
    """Trains a byte-level BPE on `text`; the vocabulary starts with <|endoftext|> and the 256 bytes.

    Raises UserError if the text is too short or too repetitive to fill the vocabulary.
    """
    tokenizer = _byte_level(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([text], trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise UserError(
            f"model.vocab_size={vocab_size}: task.data gives a vocabulary of {tokenizer.get_vocab_size()}; "
            "ask for that many or fewer (at least 257), or use a longer text"
        )
    return Tokenizer(tokenizer)


def _byte_level(bpe: tokenizers.models.BPE) -> tokenizers.Tokenizer:
    """GPT-2's pipeline around a BPE (https://github.com/openai/gpt-2/blob/master/src/encoder.py)."""
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    if bpe.token_to_id(END_OF_TEXT) is not None:
        tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer
