"""Checks the files of a tokenizer before the package `tokenizers` reads them.

That package, written in Rust, panics or aborts on some files, and takes token ids that no model has. So what it is
given is first shown to be a byte-level BPE whose parts fit together: this is the only kind that gpt2x reads.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt2x.checkpoints.tokenizer_files import TOKENIZER_FILES
from gpt2x.errors import UserError
from gpt2x.paths import shown

_LARGEST = 30_000_000  # bytes; GPT-2's tokenizer.json has 1.4 million
# Parts of a tokenizer.json by their type. What is missing here may run arbitrary regular expressions, or abort.
_NORMALIZERS = ("Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Prepend")
_PRE_TOKENIZERS = ("Sequence", "ByteLevel", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit")
_POST_PROCESSORS = ("Sequence", "ByteLevel", "TemplateProcessing")


def check_tokenizer(directory: Path, n_tokens: int) -> None:
    """Raises UserError unless the folder holds a byte-level BPE for a model with n_tokens tokens."""
    try:
        for name in TOKENIZER_FILES:
            file = directory / name
            if file.is_file() and file.stat().st_size > _LARGEST:
                raise _WrongError(f"{name}: larger than {_LARGEST:,} bytes")
        file = directory / "tokenizer.json"
        if file.is_file():
            ids = _check_whole(_object(file))
        else:
            vocabulary = _vocabulary(_object(directory / "vocab.json"), "vocab.json")
            _check_merges(_merges(directory / "merges.txt"), vocabulary)
            added = directory / "added_tokens.json"
            ids = {*vocabulary.values()}
            if added.is_file():
                ids |= {*_vocabulary(_object(added), added.name).values()}
                if ids != {*range(len(ids))}:  # they are numbered from the end of the vocabulary on when they are read
                    raise _WrongError("added_tokens.json: its ids do not follow those of vocab.json")
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            if (directory / name).is_file():
                _object(directory / name)
    except _WrongError as error:
        raise UserError(f"{shown(directory)}: its tokenizer cannot be read: {error}") from None
    refuse_more(directory, max(ids, default=0) + 1, n_tokens)


def refuse_more(directory: Path, n: int, n_tokens: int) -> None:
    """Raises UserError if the tokenizer in this folder, with ids up to n - 1, has more tokens than a model."""
    if n > n_tokens:
        raise UserError(
            f"{shown(directory)}: {n} tokens, more than the model's {n_tokens}; "
            "name another tokenizer with weights.tokenizer=DIR"
        )


class _WrongError(Exception):
    """What is wrong with a file of a tokenizer."""


def _check_whole(content: Mapping[str, Any]) -> set[int]:
    """Checks a tokenizer.json; returns the ids of its tokens."""
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or not isinstance(content.get("decoder"), dict):
        raise _WrongError("tokenizer.json: not a byte-level BPE, which is the only kind that GPT-2 has")
    if content["decoder"].get("type") != "ByteLevel":
        raise _WrongError("tokenizer.json: its decoder is not ByteLevel, so it is not a byte-level BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise _WrongError(f"tokenizer.json: model.{key} is not supported")
    _check_types(content, "normalizer", _NORMALIZERS)
    _check_types(content, "pre_tokenizer", _PRE_TOKENIZERS)
    for part in _check_types(content, "post_processor", _POST_PROCESSORS):
        _check_template(part)
    vocabulary = _vocabulary(model.get("vocab"), "tokenizer.json")
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise _WrongError("tokenizer.json: no merges in it")
    _check_merges((each.split(" ") if isinstance(each, str) else each for each in merges), vocabulary)
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(each, dict) for each in added):
        raise _WrongError("tokenizer.json: added_tokens is not a list of objects")
    named = {str(each.get("content")): each.get("id") for each in added}
    return {*vocabulary.values(), *_vocabulary(named, "tokenizer.json").values()}


def _check_types(content: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """The parts of which this step consists. Raises _WrongError for one of another type than those allowed."""
    found: list[Mapping[str, Any]] = []
    todo = [content[key]] if content.get(key) is not None else []
    while todo:
        part = todo.pop()
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in allowed:
            raise _WrongError(f"tokenizer.json: {key} of the type {str(kind)[:40]!r} is not supported")
        for name in ("normalizers", "pretokenizers", "processors"):
            inner = part.get(name)
            todo += inner if isinstance(inner, list) else []
        found.append(part)
    return found


def _check_template(part: Mapping[str, Any]) -> None:
    """Raises _WrongError if a template names special tokens that it does not define."""
    if part["type"] != "TemplateProcessing":
        return
    defined = part.get("special_tokens")
    for piece in (*(part.get("single") or ()), *(part.get("pair") or ())):
        special = piece.get("SpecialToken") if isinstance(piece, dict) else None
        if isinstance(special, dict) and (not isinstance(defined, dict) or special.get("id") not in defined):
            raise _WrongError("tokenizer.json: post_processor names a special token that it does not define")


def _vocabulary(content: Any, where: str) -> dict[str, int]:
    """The ids by token. Raises _WrongError unless each token has an id of its own."""
    if not isinstance(content, dict) or not all(type(id) is int and id >= 0 for id in content.values()):
        raise _WrongError(f"{where}: not a vocabulary of tokens with their ids")
    if len({*content.values()}) != len(content):
        raise _WrongError(f"{where}: two tokens have the same id")
    return content


def _check_merges(merges: Iterable[Any], vocabulary: Mapping[str, int]) -> None:
    """Raises _WrongError for a merge of other than two tokens, or whose tokens or result are not in the vocabulary."""
    for merge in merges:
        try:
            left, right = merge
            is_known = left in vocabulary and right in vocabulary and left + right in vocabulary
        except (TypeError, ValueError):
            is_known = False
        if not is_known:
            raise _WrongError(f"the merge {str(merge)[:60]} is not one of two tokens of the vocabulary")


def _merges(file: Path) -> Iterable[list[str]]:
    """The merges in a merges.txt."""
    lines = _text(file).split("\n")
    return (line.rstrip("\r").split(" ") for line in lines if line.strip() and not line.startswith("#version"))


def _object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(file))
    except (ValueError, RecursionError):
        raise _WrongError(f"{file.name}: not JSON") from None
    if not isinstance(content, dict):
        raise _WrongError(f"{file.name}: not a JSON object")
    return content


def _text(file: Path) -> str:
    if file.exists() and not file.is_file():  # a device can have no end
        raise _WrongError(f"{file.name}: not a file")
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise _WrongError(f"{file.name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _WrongError(f"{file.name}: not UTF-8 (byte {error.start})") from None
