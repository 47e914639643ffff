"""State dicts that torch.save wrote: zip archives since torch 1.6, plain pickles before."""

import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.paths import shown


class TorchPickle:
    """Files of any name: .pt, .pth and .bin are the usual ones."""

    name = "torch.save"

    def matches(self, path: Path) -> bool:
        return True

    def read(self, path: Path) -> dict[str, Tensor]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickle protocols; a file that cannot be read is reported below
                # Plain pickles cannot be mapped.
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except OSError:
            raise
        except Exception as error:  # damaged bytes can raise any kind
            if is_out_of_memory(error):
                raise
            if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
                raise UserError(
                    f"{shown(path)}: refused, because it holds more than tensors and loading it could run code; "
                    "save model.state_dict() instead"
                ) from None
            raise UserError(f"{shown(path)}: truncated, or not a state dict that torch.save wrote") from None
        if not isinstance(loaded, dict) or not loaded:
            raise UserError(f"{shown(path)}: not a state dict but a {type(loaded).__name__}; save model.state_dict()")
        for name, value in loaded.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise UserError(
                    f"{shown(path)}: not a state dict: {name!r} is a {type(value).__name__}; save model.state_dict()"
                )
        return loaded
