"""The fast linear layers: however the product is computed, it is the function of nn.Linear."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.model.kernels import linear
from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.model.kernels.linear import FastLinear
from tests.conftest import Cli, read_csv, run_dir

IN, OUT = 768, 1024  # large enough for all ways to be taken


def layer(
    dtype: torch.dtype = torch.float32, as_in_files: bool = True, bias: bool = True, kind: type = FastLinear
) -> Any:
    """A layer of this kind, with the weight in memory as in files ([in, out]) or as nn.Linear makes it ([out, in])."""
    generator = torch.Generator().manual_seed(0)
    made = kind(IN, OUT, bias=bias)
    weight = torch.randn(IN, OUT, generator=generator)
    made.weight.data = (weight.t() if as_in_files else weight.t().contiguous()).to(dtype)
    if bias:
        made.bias.data = torch.randn(OUT, generator=generator).to(dtype)
    return made.requires_grad_(False)


def inputs(rows: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(1, rows, IN, generator=torch.Generator().manual_seed(rows)).to(dtype)  # [1, rows, IN]


def relative_error(actual: Tensor, x: Tensor, of: nn.Linear) -> float:
    bias = None if of.bias is None else of.bias.double()
    expected = F.linear(x.double(), of.weight.double(), bias)
    assert actual.shape == expected.shape
    return ((actual.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("as_in_files", [True, False])
@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3), (torch.float64, 1e-15)])
def test_every_way_is_the_same_function(
    dtype: torch.dtype, bar: float, as_in_files: bool, packed: bool, bias: bool
) -> None:
    ours = layer(dtype, as_in_files, bias)
    if packed:
        ours.pack()
    for rows in (1, 2, 3, 4, 8, 33, 200):
        x = inputs(rows, dtype)
        y = ours(x)
        assert y.dtype == dtype
        assert relative_error(y, x, ours) < bar


@pytest.mark.parametrize("as_in_files", [True, False])
def test_a_copy_of_the_weights_changes_no_bit_of_one_row(as_in_files: bool) -> None:
    ours = layer(as_in_files=as_in_files)
    before = ours(inputs(1))
    ours.pack()
    assert torch.equal(ours(inputs(1)), before)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("as_in_files", [True, False])
def test_no_bit_depends_on_the_number_of_threads(as_in_files: bool, rows: int) -> None:
    ours, threads, products = layer(as_in_files=as_in_files), torch.get_num_threads(), []
    try:
        for n in (1, 2, 3, 4):
            torch.set_num_threads(n)
            products.append(ours(inputs(rows)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(product, products[0]) for product in products)


def test_without_onednn_it_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "has_onednn", lambda dtype: False)
    ours, x = layer(), inputs(5)
    ours.pack()
    assert ours.packed is None
    assert torch.equal(ours(x), F.linear(x, ours.weight, ours.bias))


def test_a_number_of_slices_that_does_not_divide_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_SLICES", 5)
    assert relative_error(layer()(inputs(1)), inputs(1), layer()) < 1e-6


def test_gradients_flow() -> None:
    ours = layer().requires_grad_(True)
    x = inputs(3).requires_grad_(True)
    ours(x).square().sum().backward()
    expected = torch.autograd.grad(F.linear(x, ours.weight, ours.bias).square().sum(), [x, ours.weight, ours.bias])
    for actual, grad in zip((x.grad, ours.weight.grad, ours.bias.grad), expected, strict=True):
        assert torch.allclose(actual, grad, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("bias", [True, False])
def test_int8_is_close_and_a_row_does_not_depend_on_its_batch(bias: bool) -> None:
    ours = layer(bias=bias, kind=Int8Linear)
    x = inputs(9) * torch.logspace(-3, 3, 9)[:, None]  # rows of very different sizes
    x[0, 4] = 0
    together = ours(x)
    for row in range(9):
        alone = ours(x[:, row : row + 1])
        assert torch.equal(alone[0, 0], together[0, row])
    assert relative_error(together, x, ours) < 0.02


def test_validate_says_what_int8_costs(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x("task=validate", "dtype=int8")
    assert result.code == 0, result.out + result.err
    assert "informational" in result.out
    folder = run_dir(launch, "validate")
    (summary,) = read_csv(folder / "summary.csv")
    assert (summary["dtype"], summary["verdict"]) == ("int8", "pass")
    assert 1e-6 < float(summary["mean_kl"]) < 0.05
    assert 0.7 < float(summary["top1_agreement"]) <= 1
    assert float(summary["relative_difference"]) < 1e-9  # of the model itself, in float64
    assert float(summary["error_ratio"]) > 100
    rows = {row["metric"]: row for row in read_csv(folder / "parity.csv") if row["mode"] == "int8"}
    assert rows["mean_kl"]["value"] == summary["mean_kl"]
    assert rows["error_ratio"]["tolerance"] == ""


def test_int8_is_of_our_own_model(gpt2x: Cli) -> None:
    line = gpt2x("task=validate", "dtype=int8", "subject.target=transformers:GPT2LMHeadModel").error()
    assert "dtype=int8" in line
    assert "subject.target" in line


def test_a_wrong_model_fails_in_int8_too(gpt2x: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x.model.block import MLP

    forward = MLP.forward
    monkeypatch.setattr(MLP, "forward", lambda self, x: forward(self, x) * 1.001)
    assert gpt2x("task=validate", "dtype=int8").code == 1
