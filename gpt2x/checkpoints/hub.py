"""Weights from the Hugging Face cache or hub, for weights=auto only."""

import os
import threading
from pathlib import Path

from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory

_SECONDS = 2.0  # without an answer of the hub; then there is no network
_FILES = ("config.json", "model.safetensors")


def fetch(name: str, repository: str | None, revision: str | None) -> Path:
    """The directory of a model's snapshot, downloaded (with a progress bar) unless it is in the cache.

    Raises UserError within seconds where the hub cannot be reached, with the place where to put the weights instead.
    """
    if repository is None:
        raise UserError(f"no weights for {name}, and none on the hub: name a file with weights.path=FILE")
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = [try_to_load_from_cache(repository, file, revision=revision) for file in _FILES]
    if all(isinstance(path, str) for path in cached):
        return Path(str(cached[0])).parent
    try:
        _knock(repository, revision)
        paths = [hf_hub_download(repository, file, revision=revision) for file in _FILES]
    except Exception as error:  # many kinds, from two HTTP libraries
        if is_out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"cannot download {repository} from {os.environ.get('HF_ENDPOINT', 'huggingface.co')} ({reason}): "
            f"put {name}_weights.safetensors or {name}_weights.pt into data/, or name a file with weights.path=FILE"
        ) from None
    return Path(paths[0]).parent


def _knock(repository: str, revision: str | None) -> None:
    """Asks the hub for the metadata of one file, once. Raises what went wrong, and TimeoutError after _SECONDS.

    A download would retry for a minute, and the timeout of an HTTP library does not cover a name server that does
    not answer. So the question runs in a thread, which is abandoned after _SECONDS.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    errors: list[Exception] = [TimeoutError(f"no answer in {_SECONDS:.0f} seconds")]

    def ask() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(repository, _FILES[0], revision=revision), timeout=_SECONDS)
            errors.clear()
        except Exception as error:
            errors[:] = [error]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    for error in errors:
        raise error
