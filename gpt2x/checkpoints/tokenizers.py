"""Which tokenizer belongs to a checkpoint, and how that is known. Needs no torch."""

import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from gpt2x.checkpoints.digest import file_digests
from gpt2x.checkpoints.locate import checkpoint_directory
from gpt2x.checkpoints.sizes import known_sizes, size_like
from gpt2x.checkpoints.tokenizer_check import check_tokenizer, refuse_more
from gpt2x.checkpoints.tokenizer_files import OTHER_KINDS, has_tokenizer, named_directory, tokenizer_files
from gpt2x.config.weights import GPT2_VOCABULARY, WeightsConfig
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.paths import bundled, shown
from gpt2x.tokenizer import Tokenizer, load_tokenizer

_log = logging.getLogger(__name__)
# The repositories of the published GPT-2 sizes, under their names of today and of before: all have one vocabulary.
_SIZES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")
_OF_GPT2 = {*_SIZES, *(f"openai-community/{size}" for size in _SIZES), "distilbert/distilgpt2"}


class Origin(StrEnum):
    """Why a tokenizer is taken for that of a checkpoint."""

    BESIDE = "its files are beside the weights"
    SETTING = "weights.tokenizer names it"
    REPOSITORY = "the weights are from a repository of GPT-2"
    PLACE = "the weights are in the place for those of GPT-2"
    RANDOM = "random weights have no vocabulary"
    ASSUMED = "assumed, because it has as many tokens as the model"


@dataclass(frozen=True)
class TokenizerSource:
    """The folder of a tokenizer."""

    directory: Path
    origin: Origin

    @property
    def name(self) -> str:
        """The name of a bundled tokenizer, or else the path of its folder."""
        return self.directory.name if self.directory.parent == bundled("data") else shown(self.directory)

    def facts(self) -> dict[str, Any]:
        """The facts for manifest.json."""
        digests = file_digests(tokenizer_files(self.directory))
        return {"name": self.name, "path": str(self.directory.resolve()), "origin": self.origin, "sha256": digests}


def find_tokenizer(weights: WeightsConfig, path: Path | None, config: GPT2Config) -> TokenizerSource:
    """The tokenizer of the checkpoint at `path` (None for random weights) with this architecture.

    It is what weights.tokenizer names, else the files beside the weights, else a bundled one. The number of tokens
    does not say which vocabulary a model was trained with: GPT-2's is used without a warning only if the weights are
    known to be GPT-2's, because they come from its repository or because the user has put them into the place for
    them, such as data/gpt2_weights.pt: see read_tokenizer. Raises UserError if none has as many tokens, and for a
    folder whose tokenizer is of a kind that is not read.
    """
    if weights.tokenizer is not None:
        return TokenizerSource(_named(weights.tokenizer), Origin.SETTING)
    if path is not None and has_tokenizer(checkpoint_directory(path)):
        return TokenizerSource(checkpoint_directory(path), Origin.BESIDE)
    name = _bundled_for(config, any_size=path is None)
    origin = _origin(path, name)
    if path is not None and origin is Origin.ASSUMED:
        _refuse_other_kinds(checkpoint_directory(path))
    if name is None:
        fix = f"put tokenizer.json into {shown(checkpoint_directory(path))}" if path else "leave model.vocab_size out"
        raise UserError(f"no tokenizer with {config.vocab_size} tokens: {fix}, or add weights.tokenizer=DIR")
    return TokenizerSource(bundled("data") / name, origin)


def read_tokenizer(source: TokenizerSource, path: Path | None, n_tokens: int) -> Tokenizer:
    """The tokenizer, for the model with n_tokens tokens at this path. Logs a warning if it is only assumed to be its.

    Raises UserError if it cannot be read or has more tokens.
    """
    if source.directory.parent != bundled("data"):  # the check takes 0.05 s for GPT-2's
        check_tokenizer(source.directory, n_tokens)
    tokenizer = load_tokenizer(source.directory)
    refuse_more(source.directory, tokenizer.vocab_size, n_tokens)
    if path is not None and source.origin is Origin.ASSUMED:
        _log.warning(
            "%s: no tokenizer beside it, so that of %s is used, which has as many tokens: if the model was trained "
            "with another one, add weights.tokenizer=DIR; if not, weights.tokenizer=%s",
            shown(path),
            source.name,
            source.name if source.name == GPT2_VOCABULARY else shown(source.directory),
        )
    return tokenizer


def _named(tokenizer: str) -> Path:
    directory = named_directory(tokenizer)
    if not has_tokenizer(directory):
        raise UserError(
            f"weights.tokenizer={tokenizer}: not a folder with tokenizer.json, or with vocab.json and merges.txt"
        )
    return directory


def _refuse_other_kinds(directory: Path) -> None:
    for name, kind in OTHER_KINDS.items():
        if (directory / name).is_file():
            raise UserError(
                f"{shown(directory / name)}: a tokenizer of the kind {kind}, and gpt2x reads byte-level BPE only; name "
                "another one with weights.tokenizer=DIR, or GPT-2's with weights.tokenizer=gpt2"
            )


def _bundled_for(config: GPT2Config, any_size: bool) -> str | None:
    """The name of the bundled tokenizer for this architecture; with any_size, its number of tokens decides alone."""
    if config.vocab_size == GPT2Config().vocab_size:
        return GPT2_VOCABULARY
    is_nano = config.vocab_size == known_sizes()["nano"].vocab_size if any_size else size_like(config) == "nano"
    return "nano" if is_nano else None


def _origin(path: Path | None, name: str | None) -> Origin:
    """Why this bundled tokenizer is used for weights that have none of their own."""
    if path is None:
        return Origin.RANDOM
    if name != GPT2_VOCABULARY:
        return Origin.ASSUMED
    folder = path.absolute().parent
    if folder.name == "snapshots":  # in the cache of the hub: models--OWNER--NAME/snapshots/COMMIT
        repository = folder.parent.name.removeprefix("models--").replace("--", "/")
        return Origin.REPOSITORY if repository in _OF_GPT2 else Origin.ASSUMED
    is_place = folder in (Path("data").absolute(), bundled("data")) and path.stem.removesuffix("_weights") in _SIZES
    return Origin.PLACE if is_place else Origin.ASSUMED
