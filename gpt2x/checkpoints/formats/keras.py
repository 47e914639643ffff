"""Keras's h5 files (tf_model.h5), which transformers wrote until version 5."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2x.checkpoints.contents import Contents, Layout
from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.paths import shown
from gpt2x.visible import visible

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Keras:
    """Files that begin with the signature of HDF5."""

    name = "Keras h5"

    def matches(self, path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE

    def read(self, path: Path) -> Contents:
        import h5py

        tensors: dict[str, Tensor] = {}
        refused: list[str] = []

        def take(name: str, found: Any) -> None:
            if isinstance(found, h5py.Dataset):
                # A plain dataset lies in the file as it is: no other file is read, and nothing is unpacked.
                if found.chunks or found.external or found.is_virtual or found.dtype.kind != "f":
                    refused.append(name)
                elif found.nbytes > path.stat().st_size:
                    raise ValueError("a dataset larger than the file")
                else:
                    tensors[name] = _of_bias(torch.from_numpy(found[()]), name)

        try:
            with h5py.File(path, "r") as file:
                file.visititems(take)
        except OSError as error:
            raise UserError(f"{shown(path)}: truncated, or not an HDF5 file ({str(error)[:80]})") from None
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"{shown(path)}: damaged, or not a file of Keras ({str(error)[:80]})") from None
        if refused:
            raise UserError(f"{shown(path)}: {visible(refused[0])[:80]} is not a plain array of floats")
        return Contents(self.name, tensors, Layout.CONV1D)


def _of_bias(tensor: Tensor, name: str) -> Tensor:
    """A vector, where it is the bias of Keras's Conv1D, which is [1, out]."""
    return tensor[0] if name.endswith("/bias:0") and tensor.ndim == 2 and tensor.shape[0] == 1 else tensor
