"""The training loop: optimizer steps on random windows, and an evaluation every few steps."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2x.config.tasks.train import TrainTask
from gpt2x.device import has_fast_bf16
from gpt2x.errors import UserError
from gpt2x.model.gpt2 import GPT2
from gpt2x.training.data import Tokens, random_windows
from gpt2x.training.optimizer import learning_rate
from gpt2x.training.rows import TrainRow


def train(
    model: GPT2,
    optimizer: torch.optim.AdamW,
    tokens: Tokens,
    settings: TrainTask,
    seed: int,
    first_step: int = 0,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Iterator[TrainRow]:
    """Trains from first_step, which must be 0 or the step of an evaluation, to settings.steps.

    Yields each evaluation when it is done: the model and the optimizer are then as after that step. on_step is called
    with the number of steps done and the loss (nats per token) after each one.
    Raises UserError if the validation loss is not finite.
    """
    device = model.lm_head.weight.device
    tokens_per_step = settings.batch_size * model.config.n_positions
    bf16 = has_fast_bf16(device)
    losses: list[float] = []  # since the last evaluation
    for step in range(first_step + 1, settings.steps + 1):
        lr = learning_rate(step - 1, settings)
        for group in optimizer.param_groups:
            group["lr"] = lr
        # All randomness in a step comes from the step's number, so a run that was killed repeats the step exactly.
        torch.manual_seed((seed * 1_000_003 + step - 1) % 2**63)
        losses.append(train_step(model, optimizer, tokens.train, settings, bf16))
        on_step(step, losses[-1])
        if step % settings.eval_every and step < settings.steps:
            continue
        nats = validation_nats(model, tokens.val)
        row = TrainRow(
            step=step,
            train_loss=sum(losses) / len(losses),
            val_loss=nats / (len(tokens.val) - 1),
            val_bits_per_byte=nats / math.log(2) / tokens.val_bytes,
            lr=lr,
            tokens=step * tokens_per_step,
        )
        losses.clear()
        if not math.isfinite(row.val_loss):
            raise UserError(f"step {step}: the loss is {row.val_loss}; use a smaller task.lr than {settings.lr}")
        yield row


def train_step(model: GPT2, optimizer: torch.optim.AdamW, ids: Tensor, settings: TrainTask, bf16: bool) -> float:
    """One step on random windows of ids, with bfloat16 autocast if bf16; returns the loss before it, nats per token."""
    device = model.lm_head.weight.device
    inputs, targets = random_windows(ids, settings.batch_size, model.config.n_positions, device)
    model.train()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits = model(inputs)  # [B, T, V]
    loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def validation_nats(model: GPT2, ids: Tensor, batch_size: int = 16) -> float:
    """Negative log-likelihood of ids[1:], in nats, over consecutive windows of n_positions tokens."""
    model.eval()
    device = model.lm_head.weight.device
    T = model.config.n_positions
    full = (len(ids) - 1) // T * T  # tokens that whole windows predict
    windows = zip(
        ids[:full].view(-1, T).split(batch_size), ids[1 : full + 1].view(-1, T).split(batch_size), strict=True
    )
    rest = [(ids[None, full:-1], ids[None, full + 1 :])] if full < len(ids) - 1 else []
    total = 0.0
    for inputs, targets in [*windows, *rest]:
        logits = model(inputs.to(device)).float()  # [B, T, V]
        total += F.cross_entropy(logits.flatten(0, 1), targets.to(device).flatten(), reduction="sum").item()
    return total
