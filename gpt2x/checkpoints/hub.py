"""The Hugging Face hub: what a repository holds, and its files in the cache, for weights=auto. Needs no torch."""

import hashlib
import json
import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2x.checkpoints.tokenizer_files import OTHER_KINDS, TOKENIZER_FILES, has_tokenizer
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_SECONDS = 5.0  # without an answer of the hub; then there is no network
_LONGEST_REASON = 200  # characters
_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
NAMES = (_CONFIG, *TOKENIZER_FILES, *OTHER_KINDS, _WEIGHTS, _INDEX)
"""The files that gpt2x reads in a repository, where it has them, without the shards of the weights."""
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_CHECKSUM = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_BLOCK = 1 << 22  # bytes per read


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as the hub states it."""

    name: str
    size: int
    checksum: str
    """The SHA-256 of the content (64 hexadecimal digits) of a file in LFS, or else its SHA-1 as a blob of git (40)."""

    def is_at(self, path: Path) -> bool:
        """Whether there is a file at this path that has the size and the checksum stated."""
        return path.is_file() and path.stat().st_size == self.size and self._checksum_of(path) == self.checksum

    def _checksum_of(self, path: Path) -> str:
        if len(self.checksum) == 64:
            digest = hashlib.sha256()
        else:  # not for security: it is the name that git gives to the content
            digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        with path.open("rb", buffering=0) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """The files that gpt2x reads of one commit of a repository. Those with the weights are the last."""

    repository: str
    commit: str
    files: tuple[RemoteFile, ...]


def named_repository(name: str, repository: str | None) -> str:
    """The repository of a model. Raises UserError if it has none."""
    if repository is None:
        raise UserError(f"no weights for {name}, and none on the hub: name a file with weights.path=FILE")
    return repository


def look_up(repository: str, revision: str | None) -> Snapshot:
    """What the hub has of the repository now, without asking for longer than HF_HUB_ETAG_TIMEOUT seconds.

    Raises UserError if the hub cannot be reached or refuses, and for a repository without safetensors.
    """
    try:
        found = _ask(repository, revision)
    except Exception as error:  # many kinds, from two HTTP libraries
        raise explained(error, repository, revision) from None
    siblings = {each.rfilename: each for each in found.siblings or ()}
    weights = [_WEIGHTS] if _WEIGHTS in siblings else [*sorted(filter(_SHARD.fullmatch, siblings)), _INDEX]
    missing = [name for name in (_CONFIG, weights[-1]) if name not in siblings]
    if missing:
        raise UserError(f"cannot download {repository}: it has no {missing[0].removesuffix('.index.json')}")
    files = []
    for name in (_CONFIG, *TOKENIZER_FILES, *OTHER_KINDS, *weights):
        if name in siblings:
            each = siblings[name]
            checksum = (each.lfs.sha256 if each.lfs is not None else each.blob_id) or ""
            if each.size is None or not _CHECKSUM.fullmatch(checksum):
                raise UserError(f"cannot download {repository}: {_host()} does not state the checksum of {name}")
            files.append(RemoteFile(name, each.size, checksum))
    return Snapshot(repository, str(found.sha), tuple(files))


def fetch(name: str, repository: str | None, revision: str | None) -> Path:
    """The directory of a model's snapshot, downloaded (with a progress bar) unless it is in the cache.

    If the hub cannot be asked for the tokenizer of a snapshot in the cache, the snapshot is used without it.
    Raises UserError within seconds if there is none, with the place where to put the weights instead.
    """
    repository = named_repository(name, repository)
    cached = _cached(repository, revision)
    if cached is not None and has_tokenizer(cached):
        return cached
    from huggingface_hub import hf_hub_download

    try:
        files = look_up(repository, revision).files
        try:
            paths = [hf_hub_download(repository, file.name, revision=revision) for file in files]
        except Exception as error:  # many kinds, from two HTTP libraries
            raise explained(error, repository, revision) from None
    except UserError as error:
        if cached is not None:
            return cached
        raise UserError(
            f"{error}; or put {name}_weights.safetensors or {name}_weights.pt into data/, "
            "or name a file with weights.path=FILE"
        ) from None
    return Path(paths[0]).parent


def explained(error: Exception, repository: str, revision: str | None) -> Exception:
    """The UserError for what a library has raised during a download; the error itself if memory was short."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if is_out_of_memory(error):
        return error
    if isinstance(error, HFValidationError):
        return UserError(f"model.hub={repository}: not the name of a repository, such as openai-community/gpt2")
    if isinstance(error, GatedRepoError):
        reason = f"accept its terms at {_host()}/{repository}, and set HF_TOKEN to a token of the same account"
    elif isinstance(error, RepositoryNotFoundError):
        reason = "there is no such repository; if it is a private one, set HF_TOKEN"
    elif isinstance(error, RevisionNotFoundError):
        reason = f"it has no revision {revision}; give another weights.revision"
    elif isinstance(error, OfflineModeIsEnabled):
        reason = "HF_HUB_OFFLINE is set"
    else:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        reason = f"{first[:_LONGEST_REASON]}; the same command tries again"
    return UserError(f"cannot download {repository} from {_host()}: {reason}")


def _host() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _cached(repository: str, revision: str | None) -> Path | None:
    """The directory of a snapshot in the cache with all its weights; None if there is none."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repository, _CONFIG, revision=revision)
    if not isinstance(config, str):
        return None
    folder, weights = Path(config).parent, {_WEIGHTS}
    if (folder / _INDEX).is_file():
        with suppress(ValueError, KeyError, AttributeError):
            weights = {*json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()}
    return folder if all((folder / str(name)).is_file() for name in weights) else None


def _ask(repository: str, revision: str | None) -> "ModelInfo":
    """The files of a repository, from one request. Raises what went wrong, and TimeoutError.

    A download would retry for a minute, and the timeout of an HTTP library does not cover a name server that does
    not answer. So the question runs in a thread, which is abandoned when the time is over.
    """
    from huggingface_hub import HfApi

    try:
        seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", _SECONDS))
    except ValueError:
        seconds = _SECONDS
    found: list[ModelInfo] = []
    errors: list[Exception] = [TimeoutError(f"no answer in {seconds:g} seconds")]

    def ask() -> None:
        try:
            found.append(HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=seconds))
        except Exception as error:
            errors[:] = [error]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise errors[0]
    return found[0]
