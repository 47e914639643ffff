"""task=train: makes small checkpoints and fine-tunes existing ones."""

import hashlib
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F

from gpt2x.checkpoints.export import save_checkpoint
from gpt2x.checkpoints.load import Checkpoint, complete_config, load_checkpoint
from gpt2x.config.schema import Config, TrainConfig
from gpt2x.device import find_device, find_dtype, has_fast_bf16
from gpt2x.errors import UserError
from gpt2x.model import kernels
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import bundled, read_utf8, shown, write_whole
from gpt2x.reports import console
from gpt2x.runs.manifest import Outcome
from gpt2x.runs.tables import write_rows
from gpt2x.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from gpt2x.training.rows import TrainRow

TRAIN_SHARE = 0.9  # of the text's characters; the rest is the validation split


def run(config: Config, run_dir: Path) -> Outcome:
    """Trains to train.steps, from the run folder's last checkpoint if it has one.

    Writes checkpoint/ (the weights of the lowest validation loss so far), train.csv and state.pt.
    Raises UserError for bad data or settings, and for a run folder begun with other settings.
    """
    train = config.train
    if train.data is None:
        raise UserError("task=train: name a text file with train.data=FILE")
    if config.dtype != "float32":
        raise UserError(
            f"dtype={config.dtype}: train keeps its weights in float32, and uses bfloat16 where that is fast"
        )
    device = find_device(config.device.name)
    outcome = Outcome(device=device)
    with outcome.timed("prepare"):
        train_text, val_text = _split(Path(train.data))
        model, tokenizer, outcome.checkpoint = _start(config, train_text, device)
        seed = config.weights.seed
        origin = outcome.checkpoint.weights if outcome.checkpoint else f"random weights (seed {seed})"
        data = _encode(tokenizer, train_text, "training", model.config.n_positions)
        val = _encode(tokenizer, val_text, "validation", 1)
        val_bytes = len(val_text.encode()) - len(tokenizer.decode(val[:1].tolist()).encode())
        optimizer = make_optimizer(model, train)
        text = hashlib.sha256((train_text + val_text).encode()).hexdigest()
        settings = {"train": asdict(train) | {"data": text}, "model": asdict(config.model), "seed": config.seed}
        settings["from"] = origin
        state = _State(run_dir / "state.pt", settings)
        step = state.restore(model, optimizer)
    bf16 = has_fast_bf16(device)
    tokens_a_step = train.batch_size * model.config.n_positions
    console.out.print(
        f"training {sum(p.numel() for p in model.parameters()):,} parameters from {origin} on {len(data):,} tokens, "
        f"step {step} to {train.steps}, {device.type}{' with bfloat16' if bf16 else ''}"
    )
    losses: list[float] = []
    with outcome.timed("train"), _progress() as bar:
        task = bar.add_task("train", total=train.steps, completed=step, loss="", speed=0.0)
        while step < train.steps:
            lr = learning_rate(step, train)
            for group in optimizer.param_groups:
                group["lr"] = lr
            # Everything random in a step comes from its number, so a run that was killed repeats it exactly.
            torch.manual_seed((config.seed * 1_000_003 + step) % 2**63)
            losses.append(train_step(model, optimizer, data, train, bf16))
            step += 1
            speed = (bar.tasks[task].speed or 0) * tokens_a_step
            bar.update(task, completed=step, loss=f"loss {losses[-1]:.3f}", speed=speed)
            if step % train.eval_every and step < train.steps:
                continue
            nats = validation_nats(model, val)
            row = TrainRow(
                step,
                sum(losses) / len(losses),
                nats / (len(val) - 1),
                nats / math.log(2) / val_bytes,
                lr,
                step * tokens_a_step,
            )
            losses.clear()
            if not math.isfinite(row.val_loss):
                raise UserError(f"step {step}: the loss is {row.val_loss}; use a smaller train.lr than {train.lr}")
            if all(row.val_loss < earlier.val_loss for earlier in state.rows):
                save_checkpoint(run_dir / "checkpoint", model, tokenizer, find_dtype(train.save_dtype))
            state.rows.append(row)
            write_rows(run_dir / "train.csv", TrainRow, state.rows)
            state.save(step, model, optimizer)
            console.out.print(
                f"step {row.step:>6}  train {row.train_loss:.4f}  val {row.val_loss:.4f}  "
                f"{row.val_bits_per_byte:.4f} bits a byte"
            )
    best = min(state.rows, key=lambda row: row.val_loss)
    console.out.print(
        f"best: step {best.step}, {best.val_bits_per_byte:.4f} bits a byte, in {shown(run_dir / 'checkpoint')}"
    )
    console.out.print(
        f"use it: python -m gpt2x task=generate weights.path={shown(run_dir / 'checkpoint')}", soft_wrap=True
    )
    return outcome


def train_step(model: GPT2, optimizer: torch.optim.AdamW, data: Tensor, train: TrainConfig, bf16: bool) -> float:
    """One step on a random batch, in bfloat16 where asked for; returns the loss before it, nats a token."""
    device = model.lm_head.weight.device
    inputs, targets = _batch(data, train.batch_size, model.config.n_positions, device)
    model.train()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits = model(inputs)  # [B, T, V]
    loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), train.grad_clip)
    optimizer.step()
    return loss.item()


def learning_rate(step: int, train: TrainConfig) -> float:
    """Linear from 0 to lr over the warm-up, then down a cosine that ends in min_lr."""
    if step < train.warmup_steps:
        return train.lr * (step + 1) / train.warmup_steps
    done = (step - train.warmup_steps) / max(1, train.steps - train.warmup_steps)
    return train.min_lr + (train.lr - train.min_lr) * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def validation_nats(model: GPT2, ids: Tensor, batch_size: int = 16) -> float:
    """Negative log-likelihood of ids[1:], in nats, over consecutive windows of n_positions tokens."""
    model.eval()
    device = model.lm_head.weight.device
    T = model.config.n_positions
    full = (len(ids) - 1) // T * T  # tokens predicted by whole windows
    windows = zip(
        ids[:full].view(-1, T).split(batch_size), ids[1 : full + 1].view(-1, T).split(batch_size), strict=True
    )
    rest = [(ids[None, full:-1], ids[None, full + 1 :])] if full < len(ids) - 1 else []
    total = 0.0
    for inputs, targets in [*windows, *rest]:
        logits = model(inputs.to(device)).float()  # [B, T, V]
        total += F.cross_entropy(logits.flatten(0, 1), targets.to(device).flatten(), reduction="sum").item()
    return total


def _split(path: Path) -> tuple[str, str]:
    text = read_utf8(path, "train.data")
    cut = int(len(text) * TRAIN_SHARE)
    return text[:cut], text[cut:]


def _start(config: Config, train_text: str, device: torch.device) -> tuple[GPT2, Tokenizer, Checkpoint | None]:
    """The model to begin with, and the checkpoint it is from: pretrained if weights are named, else random."""
    dropout = config.train.dropout
    if config.weights.path is not None or config.weights.source == "auto":
        checkpoint = load_checkpoint(config.model, config.weights, torch.float32, device)
        model = GPT2(replace(checkpoint.model.config, dropout=dropout)).to(device)
        model.load_state_dict(checkpoint.model.state_dict())
        kernels.swap_in(model)  # for the validation loss; steps take the plain product
        return model, checkpoint.tokenizer, checkpoint
    architecture = complete_config(config.model)
    if config.model.tokenizer == "own":
        tokenizer = train_tokenizer(train_text, architecture.vocab_size)
    else:
        tokenizer = load_tokenizer(bundled("data") / "gpt2")
    model = GPT2(replace(architecture, dropout=dropout))
    model.init_weights(config.weights.seed)
    kernels.swap_in(model)
    return model.to(device), tokenizer, None


def _encode(tokenizer: Tokenizer, text: str, split: str, context: int) -> Tensor:
    ids = torch.tensor(tokenizer.encode(text))
    if len(ids) <= context:
        raise UserError(f"train.data: its {split} split has {len(ids)} tokens; at least {context + 1} are needed")
    return ids


def _batch(data: Tensor, batch_size: int, T: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random windows, and the same one token later: [B, T] each."""
    starts = torch.randint(len(data) - T, (batch_size, 1))
    windows = data[starts + torch.arange(T + 1)].to(device)  # [B, T + 1]
    return windows[:, :-1], windows[:, 1:]


def make_optimizer(model: GPT2, train: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101) that decays matrices, not biases and norms."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr, betas=(0.9, train.beta2), fused=True)


def _progress() -> Progress:
    return console.progress(
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[speed]:,.0f} tokens/s"),
        TimeRemainingColumn(),
    )


class _State:
    """state.pt: what it takes to go on exactly where the last evaluation was."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.rows: list[TrainRow] = []

    def restore(self, model: GPT2, optimizer: torch.optim.AdamW) -> int:
        """Loads the state, if there is one; returns the number of steps done."""
        if not self.path.is_file():
            return 0
        try:
            saved = torch.load(self.path, weights_only=True, map_location=model.lm_head.weight.device)
            settings = saved["settings"]
        except Exception:  # of any kind, from bytes of any kind
            raise UserError(f"{shown(self.path)}: cannot be read; give another hydra.run.dir") from None
        if settings != self.settings:
            raise UserError(f"{shown(self.path.parent)}: begun with other settings; give another hydra.run.dir")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        self.rows = [TrainRow(**row) for row in saved["rows"]]
        return saved["step"]

    def save(self, step: int, model: GPT2, optimizer: torch.optim.AdamW) -> None:
        saved = {
            "settings": self.settings,
            "step": step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rows": [asdict(row) for row in self.rows],
        }
        write_whole(self.path, lambda temporary: torch.save(saved, temporary))
