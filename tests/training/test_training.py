"""The training loop and its state as a library: evaluations, without console output."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from gpt2x.config.tasks.train import TrainTask
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.tokenizer import train_tokenizer
from gpt2x.training.data import Tokens, encode_splits, split_text
from gpt2x.training.loop import train
from gpt2x.training.optimizer import make_optimizer
from gpt2x.training.rows import TrainRow
from gpt2x.training.state import STATE, load_state, save_state

TEXT = "".join(f"the café at {i % 24}:00 serves {i * 7 % 100} cups.\n" for i in range(60))
SETTINGS = TrainTask(
    data="text.txt",
    steps=7,
    batch_size=2,
    lr=0.01,
    min_lr=0.001,
    warmup_steps=2,
    weight_decay=0.1,
    beta2=0.99,
    grad_clip=1.0,
    dropout=0.2,
    eval_every=3,
    save_dtype="float32",
)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return encode_splits(train_tokenizer("", 257), *split_text(TEXT), 16)


def new_model(n_embd: int = 8) -> tuple[GPT2, torch.optim.AdamW]:
    model = GPT2(GPT2Config(vocab_size=257, n_positions=16, n_embd=n_embd, n_layer=1, n_head=2, dropout=0.2))
    model.init_weights(0)
    return model, make_optimizer(model, SETTINGS)


def test_splits(tokens: Tokens) -> None:
    """With one token per byte, so that the numbers are known."""
    first, last = split_text(TEXT)
    assert first + last == TEXT
    assert (len(tokens.train), len(tokens.val)) == (len(first.encode()), len(last.encode()))
    assert tokens.val_bytes == len(tokens.val) - 1


@pytest.mark.parametrize(("n_positions", "val", "split"), [(16, "a", "validation"), (len(TEXT), "abc", "training")])
def test_a_text_that_is_too_short_is_refused(n_positions: int, val: str, split: str) -> None:
    with pytest.raises(UserError, match=f"its {split} split has .* at least"):
        encode_splits(train_tokenizer("", 257), TEXT[:20], val, n_positions)


def test_evaluations_are_yielded(tokens: Tokens, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps: list[int] = []
    losses: list[float] = []

    def on_step(step: int, loss: float) -> None:
        steps.append(step)
        losses.append(loss)

    rows = list(train(*new_model(), tokens, SETTINGS, 0, on_step=on_step))
    assert [row.step for row in rows] == [3, 6, 7]  # every third step, and the last one
    assert [row.tokens for row in rows] == [step * 2 * 16 for step in (3, 6, 7)]
    assert steps == list(range(1, 8))
    means = [sum(losses[:3]) / 3, sum(losses[3:6]) / 3, losses[6]]
    assert [row.train_loss for row in rows] == pytest.approx(means)
    assert rows[-1].val_loss < rows[0].val_loss
    assert rows[-1].val_bits_per_byte == pytest.approx(rows[-1].val_loss / 0.6931471805599453)  # a token is a byte
    assert capfd.readouterr() == ("", "")


def test_other_seeds_see_other_windows(tokens: Tokens) -> None:
    losses = [next(train(*new_model(), tokens, SETTINGS, seed)).train_loss for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_a_state_continues_exactly(tokens: Tokens, tmp_path: Path) -> None:
    model, optimizer = new_model()
    path, rows = tmp_path / STATE, []
    for row in train(model, optimizer, tokens, SETTINGS, 0):
        rows.append(row)
        if row.step == 3:
            save_state(path, model, optimizer, rows)
    torch.manual_seed(1)  # the global random numbers do not matter
    again, other = new_model()
    other_rows = load_state(path, again, other)
    assert other_rows == rows[:1]
    other_rows += train(again, other, tokens, SETTINGS, 0, first_step=3)
    assert other_rows == rows
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_without_a_state_nothing_is_loaded(tmp_path: Path) -> None:
    model, optimizer = new_model()
    before = deepcopy(model.state_dict())
    assert load_state(tmp_path / STATE, model, optimizer) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("damage", ["empty", "text", "torn", "key", "row", "shape"])
def test_an_unreadable_state_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / STATE
    model, optimizer = new_model(16 if damage == "shape" else 8)
    save_state(path, model, optimizer, [TrainRow(3, 1.0, 1.0, 1.0, 0.1, 96)])
    if damage in ("key", "row"):
        saved = torch.load(path)
        saved |= {"rows": [{"step": 3}]}
        torch.save(saved if damage == "row" else {"model": saved["model"]}, path)
    elif damage != "shape":
        path.write_bytes({"empty": b"", "text": b"no", "torn": path.read_bytes()[:-500]}[damage])
    with pytest.raises(UserError, match=r"state\.pt: cannot be read; give another hydra\.run\.dir"):
        load_state(path, *new_model())


def test_a_loss_that_is_not_finite_ends_the_training(tokens: Tokens) -> None:
    model, optimizer = new_model()
    model.transformer.ln_f.bias.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"step 3: the loss is nan; use a smaller task\.lr than 0\.01"):
        next(train(model, optimizer, tokens, SETTINGS, 0))
