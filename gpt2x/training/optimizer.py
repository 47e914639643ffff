"""AdamW, the memory that it takes, and the learning rate's schedule."""

import math

import torch

from gpt2x.config.tasks.train import TrainTask
from gpt2x.memory import check_fits
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2


def check_fits_training(architecture: GPT2Config, device: torch.device) -> None:
    """Raises DoesNotFitError if the weights, their gradients and AdamW's two averages do not fit in memory.

    What the layers keep for the backward pass is not counted. A GPU reports itself that its memory is full.
    """
    if device.type != "cpu":
        return
    with torch.device("meta"):
        n_parameters = sum(parameter.numel() for parameter in GPT2(architecture).parameters())
    check_fits(4 * 4 * n_parameters, f"training {n_parameters:,} parameters")


def make_optimizer(model: GPT2, settings: TrainTask) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101) with weight decay on matrices, but not on biases and norms."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, settings.beta2), fused=True)


def learning_rate(step: int, settings: TrainTask) -> float:
    """The learning rate of a step, counted from 0: linear up to lr, then a cosine down to min_lr."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.min_lr + (settings.lr - settings.min_lr) * (1 + math.cos(math.pi * done)) / 2
