"""task=train: makes small checkpoints and fine-tunes existing ones; writes checkpoint/, train.csv and state.pt."""

from dataclasses import replace
from pathlib import Path

import torch

from gpt2x.checkpoints.exporting.hf import save_checkpoint
from gpt2x.checkpoints.load import Checkpoint, complete_config, load_checkpoint
from gpt2x.config.schema import Config
from gpt2x.config.tasks.train import TrainTask
from gpt2x.device import find_device, find_dtype
from gpt2x.errors import UserError
from gpt2x.memory import check_room_for
from gpt2x.model import kernels
from gpt2x.model.gpt2 import GPT2
from gpt2x.paths import bundled, read_utf8
from gpt2x.reports.training import progress_bar, show_end, show_evaluation, show_start
from gpt2x.runs.tables import write_rows
from gpt2x.tasks.outcome import Outcome
from gpt2x.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from gpt2x.training.data import encode_splits, split_text
from gpt2x.training.loop import train
from gpt2x.training.optimizer import check_fits_training, make_optimizer
from gpt2x.training.rows import TrainRow
from gpt2x.training.state import STATE, load_state, save_state


def run(config: Config, task: TrainTask, run_dir: Path) -> Outcome:
    """Trains to task.steps. A run that was killed continues from its last evaluation, whose state is in the folder.

    Writes checkpoint/ (the weights with the lowest validation loss so far), train.csv and state.pt.
    Raises UserError for data or settings with which training is not possible.
    """
    assert task.data is not None  # the schema refuses it
    check_room_for("training")
    device = find_device(config.device.name)
    outcome = Outcome(device=device)
    with outcome.timed("prepare"):
        train_text, val_text = split_text(read_utf8(Path(task.data), "task.data"))
        model, tokenizer, checkpoint = _initial_model(config, task.dropout, train_text, device)
        if checkpoint is not None:
            outcome.loaded(checkpoint, run_dir)
        tokens = encode_splits(tokenizer, train_text, val_text, model.config.n_positions)
        optimizer = make_optimizer(model, task)
        rows = load_state(run_dir / STATE, model, optimizer)
        first_step = rows[-1].step if rows else 0
    random = f"random weights (seed {config.weights.seed})"
    origin = outcome.checkpoint.weights if outcome.checkpoint else random
    show_start(model, origin, len(tokens.train), first_step, task.steps)
    tokens_per_step = task.batch_size * model.config.n_positions
    with outcome.timed("train"), progress_bar(first_step, task.steps, tokens_per_step) as on_step:
        for row in train(model, optimizer, tokens, task, config.seed, first_step, on_step):
            if all(row.val_loss < earlier.val_loss for earlier in rows):
                save_checkpoint(run_dir / "checkpoint", model, tokenizer, find_dtype(task.save_dtype))
            rows.append(row)
            write_rows(run_dir / "train.csv", TrainRow, rows)
            save_state(run_dir / STATE, model, optimizer, rows)
            show_evaluation(row)
    best = min(rows, key=lambda row: row.val_loss)
    outcome.numbers = {"val_bits_per_byte": best.val_bits_per_byte, "val_loss": best.val_loss}
    show_end(best, run_dir / "checkpoint")
    return outcome


def _initial_model(
    config: Config, dropout: float, train_text: str, device: torch.device
) -> tuple[GPT2, Tokenizer, Checkpoint | None]:
    """The model to start from: the checkpoint's if the settings name weights, else one with random weights."""
    if config.weights.path is not None or config.weights.source == "auto":
        checkpoint = load_checkpoint(config.model, config.weights, torch.float32, device)
        check_fits_training(checkpoint.model.config, device)
        model = GPT2(replace(checkpoint.model.config, dropout=dropout)).to(device)
        model.load_state_dict(checkpoint.model.state_dict())
        kernels.swap_in(model)  # for the validation loss; steps take the plain product
        return model, checkpoint.tokenizer, checkpoint
    if config.weights.tokenizer is not None:
        raise UserError(
            f"weights.tokenizer={config.weights.tokenizer}: for a training from scratch, use model.tokenizer"
        )
    architecture = complete_config(config.model)
    check_fits_training(architecture, device)
    if config.model.tokenizer == "own":
        tokenizer = train_tokenizer(train_text, architecture.vocab_size)
    else:
        tokenizer = load_tokenizer(bundled("data") / "gpt2")
    model = GPT2(replace(architecture, dropout=dropout))
    model.init_weights(config.weights.seed)
    kernels.swap_in(model)
    return model.to(device), tokenizer, None
