"""The files of a tokenizer, by name. Needs neither torch nor the package `tokenizers`."""

from pathlib import Path

from gpt2x.config.weights import GPT2_VOCABULARY
from gpt2x.paths import bundled, expanded

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
"""All files that a tokenizer may consist of, beside the weights of a checkpoint."""
OTHER_KINDS = {
    "vocab.txt": "WordPiece",
    "spiece.model": "sentencepiece",
    "sentencepiece.bpe.model": "sentencepiece",
    "tokenizer.model": "sentencepiece",
}
"""Files of tokenizers that gpt2x does not read, and their kinds. They show that a checkpoint has another tokenizer."""


def has_tokenizer(directory: Path) -> bool:
    """Whether gpt2x.tokenizer.load_tokenizer finds files to read in this folder."""
    return (directory / "merges.txt").is_file() or (directory / "tokenizer.json").is_file()


def tokenizer_files(directory: Path) -> list[Path]:
    """The files of the tokenizer in this folder, in the order of TOKENIZER_FILES."""
    return [file for name in TOKENIZER_FILES if (file := directory / name).is_file()]


def named_directory(tokenizer: str) -> Path:
    """The folder that weights.tokenizer names. It need not exist."""
    if tokenizer == GPT2_VOCABULARY:
        return bundled("data") / GPT2_VOCABULARY
    return expanded(tokenizer, "weights.tokenizer")
