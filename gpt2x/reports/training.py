"""What task=train shows on the console: what it starts from, a progress bar, each evaluation and the best one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from gpt2x.device import has_fast_bf16
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import shown
from gpt2x.reports import console
from gpt2x.training.rows import TrainRow


def show_start(model: GPT2, origin: str, n_tokens: int, first_step: int, steps: int) -> None:
    """One line; `origin` says where the weights come from, n_tokens is the size of the training split."""
    device = model.lm_head.weight.device
    console.out.print(
        f"training {sum(p.numel() for p in model.parameters()):,} parameters from {origin} on {n_tokens:,} tokens, "
        f"step {first_step} to {steps}, {device.type}{' with bfloat16' if has_fast_bf16(device) else ''}"
    )


@contextmanager
def progress_bar(first_step: int, steps: int, tokens_per_step: int) -> Iterator[Callable[[int, float], None]]:
    """A progress bar on stderr, if that is a terminal; yields the function that takes the steps done and the loss."""
    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[speed]:,.0f} tokens/s"),
        TimeRemainingColumn(),
    )
    with console.progress(*columns) as bar:
        task = bar.add_task("train", total=steps, completed=first_step, loss="", speed=0.0)

        def update(step: int, loss: float) -> None:
            speed = (bar.tasks[task].speed or 0) * tokens_per_step
            bar.update(task, completed=step, loss=f"loss {loss:.3f}", speed=speed)

        yield update


def show_evaluation(row: TrainRow) -> None:
    console.out.print(
        f"step {row.step:>6}  train {row.train_loss:.4f}  val {row.val_loss:.4f}  "
        f"{row.val_bits_per_byte:.4f} bits per byte"
    )


def show_end(best: TrainRow, checkpoint: Path) -> None:
    """Two lines: the best evaluation, whose weights are in `checkpoint`, and the command that generates with them."""
    console.out.print(
        f"best: step {best.step}, {best.val_bits_per_byte:.4f} bits per byte, in {shown(checkpoint)}", soft_wrap=True
    )
    console.out.print(f"use it: python -m gpt2x task=generate weights.path={shown(checkpoint)}", soft_wrap=True)
