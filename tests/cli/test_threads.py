"""The tables of every task have the same bytes with any number of threads."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gpt2x.model.kernels.capabilities import prefers_mkl
from gpt2x.model.kernels.norm import SteadyLayerNorm
from tests.conftest import REPO, Cli, read_csv

README = f"task.data={REPO / 'README.md'}"
TRAIN = ("model=nano", "model.vocab_size=512", README, "task.steps=3", "task.batch_size=2", "task.eval_every=3")


@pytest.fixture(autouse=True)
def threads_kept() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("args", "table"),
    [
        (
            ("task=generate", "prompt=[Juliet,Now]", "decode.num_samples=3", "decode.max_new_tokens=12"),
            "generations.csv",
        ),
        (("task=generate", "dtype=float64", "prompt=Juliet", "decode.max_new_tokens=12"), "generations.csv"),
        (("task=train", *TRAIN), "train.csv"),
        (("task=train", *TRAIN, "task.dropout=0.1"), "train.csv"),
        (("task=evaluate", README), "evaluation.csv"),
    ],
    ids=["float32", "float64", "train", "dropout", "evaluate"],
)
def test_a_table_has_the_same_bytes(gpt2x: Cli, launch: Path, args: tuple[str, ...], table: str) -> None:
    contents = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert gpt2x(*args, f"hydra.run.dir={threads}").code == 0
        contents.append((launch / str(threads) / table).read_bytes())
    assert contents[0] == contents[1] == contents[2]


def test_a_verdict_is_the_same(gpt2x: Cli, launch: Path) -> None:
    """On Intel's CPUs, to the last byte. On others, the last digits of MKL's float64 products depend on the threads."""
    tables = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert gpt2x("task.stages=[logits,layers,loss,gradients]", f"hydra.run.dir={threads}").code == 0
        tables.append(read_csv(launch / str(threads) / "parity.csv"))
    assert len(tables[0]) > 100
    if prefers_mkl():
        assert tables[0] == tables[1] == tables[2]
    values = [[float(row.pop("value")) for row in table] for table in tables]
    assert tables[0] == tables[1] == tables[2]
    for other in values[1:]:
        assert other == pytest.approx(values[0], rel=1e-6, abs=1e-13)


def gradients(norm: torch.nn.LayerNorm, threads: int) -> list[torch.Tensor]:
    torch.set_num_threads(threads)
    x = torch.randn(501, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (norm(x) * x.detach().roll(1)).sum().backward()
    found = [x.grad, norm.weight.grad, norm.bias.grad]
    norm.zero_grad()
    return [each for each in found if each is not None]


def test_the_gradients_of_a_steady_layer_norm() -> None:
    plain, steady = torch.nn.LayerNorm(64), SteadyLayerNorm(64)
    for parameter in (*plain.parameters(), *steady.parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    one, three = gradients(steady, 1), gradients(steady, 3)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(one, gradients(plain, 1), strict=True))
    x = torch.randn(5, 64)
    with torch.no_grad():
        assert torch.equal(steady(x), plain(x))
