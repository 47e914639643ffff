"""The row of train.csv."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainRow:
    """train.csv: one row an evaluation."""

    step: int
    train_loss: float
    """Mean over the steps since the row before; nats a token."""
    val_loss: float
    """Over the whole validation split; nats a token."""
    val_bits_per_byte: float
    lr: float
    tokens: int
    """Trained on so far."""
