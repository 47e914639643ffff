"""The row of train.csv."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainRow:
    """train.csv: one row per evaluation."""

    step: int
    """Steps done."""
    train_loss: float
    """Mean over the steps since the previous row, in nats per token."""
    val_loss: float
    """Over the whole validation split, in nats per token."""
    val_bits_per_byte: float
    """The same loss in bits per UTF-8 byte of the text: comparable between tokenizers."""
    lr: float
    """Learning rate of the last step."""
    tokens: int
    """Trained on so far."""
