"""Finding, reading and writing weights; nothing else in gpt2x opens a weights file."""

from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.checkpoints.write import save_checkpoint

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]
