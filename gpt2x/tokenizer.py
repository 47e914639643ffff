"""Byte-level BPE, by the package `tokenizers`: GPT-2's vocabulary, that of a checkpoint, or one trained here."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers

from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.paths import shown

END_OF_TEXT = "<|endoftext|>"


class Tokenizer:
    """Converts text to token ids and back. `<|endoftext|>` in a text is the special token, as in transformers."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.vocab_size: int = backend.get_vocab_size()
        self.eos_id: int | None = backend.token_to_id(END_OF_TEXT)

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text).ids

    def fewest_tokens(self, text: str) -> int:
        """How many tokens a text has at least, found without encoding it."""
        return -(-len(text) // self._longest)

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
        """Writes vocab.json, merges.txt and tokenizer_config.json, which transformers can read too.

        Raises UserError if a file cannot be written.
        """
        try:
            self.backend.model.save(str(directory))
            (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}\n')
        except Exception as error:  # tokenizers, written in Rust, raises no class of its own
            if is_out_of_memory(error):
                raise
            raise UserError(f"cannot write the tokenizer into {shown(directory)}: {error}") from None


def has_tokenizer(directory: Path) -> bool:
    """Whether load_tokenizer finds files to read in this folder."""
    return (directory / "merges.txt").is_file() or (directory / "tokenizer.json").is_file()


def load_tokenizer(directory: Path) -> Tokenizer:
    """Reads vocab.json with merges.txt, or else tokenizer.json; UserError if neither can be read."""
    try:
        if (directory / "merges.txt").is_file():
            bpe = tokenizers.models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt"))
            return Tokenizer(_byte_level(bpe))
        return Tokenizer(tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json")))
    except Exception as error:  # tokenizers, written in Rust, raises no class of its own
        if is_out_of_memory(error):
            raise
        raise UserError(f"{shown(directory)}: its tokenizer cannot be read: {error}") from None


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
