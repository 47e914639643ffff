"""torch versions without the private operators, and products of numbers that are special."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2x.model.kernels import capabilities, linear
from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.model.kernels.linear import FastLinear
from tests.model.layers import SIZE, assert_correct, copied, inputs


@pytest.fixture
def probed() -> Iterator[Callable[[], None]]:
    """Forgets what was found out about this torch, now and after the test."""

    def forget() -> None:
        for probe in (capabilities.has_onednn, capabilities.has_int8, capabilities.reduces_range):
            probe.cache_clear()

    forget()
    yield forget
    forget()


class _Broken:
    """What raises however it is used."""

    def __call__(self, *args: object) -> Any:
        raise RuntimeError("not in this version")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("not in this version")


def stand_in(monkeypatch: pytest.MonkeyPatch, path: str, value: object = None) -> None:
    """Gives an attribute of torch, by its path, another value; without one, it is missing."""
    *names, last = path.split(".")
    if not names:
        monkeypatch.setattr(torch, last, value) if value else monkeypatch.delattr(torch, last)
        return
    parent: Any = torch
    for name in names[:-1]:
        parent = getattr(parent, name)
    owner = getattr(parent, names[-1])

    class StandIn:
        def __getattr__(self, name: str) -> Any:
            if name != last:
                return getattr(owner, name)
            if value is None:
                raise AttributeError(name)
            return value

    monkeypatch.setattr(parent, names[-1], StandIn())


OPERATORS = [
    "cpu._is_vnni_supported",
    "backends.mkldnn",
    "backends.mkldnn.is_available",
    "ops.mkldnn._is_mkldnn_bf16_supported",
    "ops.mkldnn._linear_pointwise",
    "ops.mkldnn._reorder_linear_weight",
    "backends.quantized",
    "ops.quantized.linear_prepack",
    "ops.quantized.linear_dynamic",
    "quantize_per_channel",
    "qint8",
]
INT8 = ("backends.quantized", "ops.quantized.linear_prepack", "ops.quantized.linear_dynamic", "quantize_per_channel")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", ["missing", "raising"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_without_an_operator_the_product_is_the_same_function(
    monkeypatch: pytest.MonkeyPatch, probed: Callable[[], None], operator: str, way: str, dtype: torch.dtype
) -> None:
    stand_in(monkeypatch, operator, None if way == "missing" else _Broken())
    layer = FastLinear(SIZE, SIZE).requires_grad_(False).to(dtype)
    layer.pack()
    assert_correct(layer, None if dtype == torch.float32 else 5e-3)
    if "mkldnn" in operator and "bf16" not in operator:
        assert layer.packed is None
        x = inputs().to(dtype)
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert capabilities.takes_int8(torch.device("cpu")) == (operator not in (*INT8, "qint8"))
    if capabilities.has_int8():
        assert_correct(copied(Int8Linear))


def test_without_any_of_them_gpt2x_is_imported_and_loads(tmp_path: Path) -> None:
    program = """
import torch

torch.ops.mkldnn = torch.ops.quantized = torch.backends.quantized = None
del torch.cpu._is_vnni_supported, torch.quantize_per_channel, torch.qint8, torch.ScriptObject
import gpt2x.tasks.generate, gpt2x.tasks.validate
from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig

model = load_checkpoint(ModelConfig("auto"), WeightsConfig("local"), torch.float32, torch.device("cpu")).model
print(model(torch.zeros(1, 1, dtype=torch.long)).isfinite().all().item())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["True"]


def test_wrong_numbers_count_as_absent(monkeypatch: pytest.MonkeyPatch, probed: Callable[[], None]) -> None:
    product = torch.ops.mkldnn._linear_pointwise
    stand_in(monkeypatch, "ops.mkldnn._linear_pointwise", lambda *args: product(*args) * 2)
    assert not capabilities.has_onednn(torch.float32)
    assert_correct(FastLinear(SIZE, SIZE).requires_grad_(False))


def test_int8_rows_that_are_not_finite_give_nan_and_leave_the_others_alone() -> None:
    torch.manual_seed(0)
    layer = Int8Linear(8, 6).requires_grad_(False)
    x = torch.randn(4, 8)
    expected = layer(x)
    x[1, 3], x[2, 0] = torch.nan, torch.inf
    y = layer(x)
    assert y[1:3].isnan().all()
    assert torch.equal(y[[0, 3]], expected[[0, 3]])


def test_float16_without_instructions_for_it_is_multiplied_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounding of the result is then the only one. One row is fast in any case."""
    layer = FastLinear(SIZE, SIZE).half().requires_grad_(False)
    x = inputs().half()
    seen = []

    def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(x.dtype)
        return x @ weight.t() + bias

    expected = (x.double() @ layer.weight.double().t() + layer.bias.double()).half()
    monkeypatch.setattr(linear, "has_float16", lambda: False)
    monkeypatch.setattr(linear.F, "linear", product)
    assert (layer(x) - expected).abs().max() <= 2**-11 * expected.abs().max()
    layer(x[:1])
    monkeypatch.setattr(linear, "has_float16", lambda: True)
    layer(x)
    assert seen == [torch.float32, torch.float16, torch.float16]
