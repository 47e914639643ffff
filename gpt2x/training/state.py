"""state.pt: what a training needs to continue exactly where its last evaluation was."""

import zipfile
from dataclasses import asdict
from pathlib import Path

import torch

from gpt2x.errors import UserError
from gpt2x.memory import is_out_of_memory
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import shown, write_whole
from gpt2x.training.rows import TrainRow

STATE = "state.pt"
"""In the run folder of a training: a folder with this file can be continued."""


def load_state(path: Path, model: GPT2, optimizer: torch.optim.AdamW) -> list[TrainRow]:
    """Restores the model and the optimizer, and returns the evaluations so far; none if there is no such file.

    Raises UserError if the file cannot be read.
    """
    if not path.is_file():
        return []
    try:
        if zipfile.ZipFile(path).testzip() is not None:  # torch does not compare the checksums
            raise ValueError("a checksum is wrong")
        saved = torch.load(path, weights_only=True, map_location=model.lm_head.weight.device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        return [TrainRow(**row) for row in saved["rows"]]
    except Exception as error:  # damaged bytes raise errors of any class
        if is_out_of_memory(error):
            raise
        raise UserError(f"{shown(path)}: cannot be read; give another hydra.run.dir") from None


def save_state(path: Path, model: GPT2, optimizer: torch.optim.AdamW, rows: list[TrainRow]) -> None:
    """Writes the state after the last of these evaluations, whole or not at all; UserError if it cannot be written."""
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rows": [asdict(row) for row in rows],
    }
    write_whole(path, lambda temporary: torch.save(saved, temporary))
