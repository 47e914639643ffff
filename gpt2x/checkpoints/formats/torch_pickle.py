"""What torch.save wrote: zip archives since torch 1.6, plain pickles before."""

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from gpt2x.checkpoints.contents import Contents
from gpt2x.checkpoints.formats.wrapped import Options, unwrapped
from gpt2x.errors import UserError
from gpt2x.memory import available_memory, is_out_of_memory
from gpt2x.paths import shown


class TorchPickle:
    """Files of any name: .pt, .pth, .bin and .ckpt are the usual ones."""

    name = "torch.save"

    def matches(self, path: Path) -> bool:
        return True

    def read(self, path: Path) -> Contents:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickle protocols; a file that cannot be read is reported below
                loaded = _load(path, zipfile.is_zipfile(path))
        except (OSError, UserError):
            raise
        except Exception as error:  # damaged bytes can raise any kind
            # Where the file would fit, it has asked for memory that it only declares.
            if is_out_of_memory(error) and available_memory() < 2 * path.stat().st_size:
                raise
            if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
                raise UserError(
                    f"{shown(path)}: refused, because it holds more than tensors and loading it could run code; "
                    "save model.state_dict() instead"
                ) from None
            raise UserError(f"{shown(path)}: truncated, or not a state dict that torch.save wrote") from None
        return unwrapped(loaded, self.name, path)


def _load(path: Path, is_zip: bool) -> Any:
    """The object in the file, without running code of it. Objects of classes for options are read as Options."""
    if not is_zip:
        with _Bounded(path) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise UserError(f"{shown(path)}: a compressed archive, which torch.save does not write")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        names = get_unsafe_globals_in_checkpoint(path)
        if not names or not all(name == "argparse.Namespace" or name.endswith("Config") for name in names):
            raise
        with safe_globals([(Options, name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


class _Bounded(io.BufferedReader):
    """A file that is asked for no more bytes than it has, however long a pickle says that a text is."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._n_bytes = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(-1 if size is None else min(size, self._n_bytes))

    def fileno(self) -> int:
        """Refused, so that torch reads the file by `read` and looks for no archive of tar."""
        raise io.UnsupportedOperation
