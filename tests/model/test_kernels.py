"""Swapped-in layers: copies of a weight that are never stale, and torch versions without the private operators."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.checkpoints.load import model_of
from gpt2x.model import kernels
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels import capabilities, linear
from gpt2x.model.kernels.copies import WeightCopy
from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.model.kernels.linear import FastLinear

SIZE = 768  # square, so that a transposed weight fits; large enough for all products
BARS = {FastLinear: 1e-5, Int8Linear: 0.02}
Layer = FastLinear | Int8Linear
KINDS = pytest.mark.parametrize("kind", BARS)


def inputs(rows: int = 5) -> Tensor:
    return torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(1))


# The rows that change: none of them is among those that a WeightCopy compares.
ROWS = slice(1, None, 2)


def other_weight(layer: Layer) -> Tensor:
    weight = layer.weight.detach().clone()
    weight[ROWS] = torch.randn(SIZE // 2, SIZE, generator=torch.Generator().manual_seed(2))
    return weight


def copied(kind: type[Layer]) -> Any:
    """A layer that holds a copy of its weight."""
    torch.manual_seed(0)
    made = kind(SIZE, SIZE).requires_grad_(False)
    made.weight.data = torch.randn(SIZE, SIZE).t()
    made.pack() if isinstance(made, FastLinear) else made.quantize()
    assert held(made) is not None
    assert_correct(made)
    assert held(made) is not None
    return made


def held(layer: Layer) -> WeightCopy[Any] | None:
    return layer.packed if isinstance(layer, FastLinear) else layer.int8


def assert_correct(layer: Layer, bar: float | None = None) -> None:
    """The product is that of the weight as it is now, for one row and for several."""
    for rows in (1, 5):
        x = inputs(rows).to(layer.weight.dtype)
        expected = F.linear(x.double(), layer.weight.double(), layer.bias.double())
        error = (layer(x).double() - expected).norm() / expected.norm()
        assert error < (bar or BARS[type(layer)])


def load(layer: Layer, assign: bool = False) -> None:
    layer.load_state_dict({"weight": other_weight(layer), "bias": layer.bias.clone()}, assign=assign)


def replace_at_the_same_address(layer: Layer) -> None:
    """As far as that depends on the layer: the memory of the old weight is free before the new one is made."""
    weight = other_weight(layer).numpy().copy()
    layer.weight.data = torch.empty(0)
    layer.weight.data = torch.tensor(weight)


def step(layer: Layer, **options: Any) -> None:
    """Some training of the outputs in ROWS."""
    before = layer.weight.detach().clone()
    layer.requires_grad_(True).train()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0, **options)
    for _ in range(3):
        optimizer.zero_grad()
        layer(inputs())[:, ROWS].square().sum().backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 200.0)
        optimizer.step()
    layer.eval()
    assert (layer.weight != before).any(1).tolist() == [False, True] * (SIZE // 2)


def step_without_a_product(layer: Layer) -> None:
    """torch's fused optimizer leaves the version of the weight as it was."""
    layer.weight.grad = torch.ones_like(layer.weight)
    version = layer.weight._version
    torch.optim.AdamW([layer.weight], lr=0.1, fused=True).step()
    assert layer.weight._version == version


def in_place(layer: Layer) -> None:
    with torch.no_grad():
        layer.weight[ROWS].neg_()


def in_inference_mode(layer: Layer) -> None:
    with torch.inference_mode():
        layer.weight[ROWS].neg_()


def replace_parameter(layer: Layer) -> None:
    layer.weight = nn.Parameter(other_weight(layer), requires_grad=False)


def replace_parameter_on_the_same_memory(layer: Layer) -> None:
    version = layer.weight._version
    layer.weight = nn.Parameter(layer.weight.data, requires_grad=False)
    layer.weight[ROWS].neg_()
    while layer.weight._version < version:
        layer.weight.add_(0)
    assert layer.weight._version == version


def set_data(name: str) -> Callable[[Layer], None]:
    def change(layer: Layer) -> None:
        layer.weight.data = {"other": other_weight(layer), "transposed": layer.weight.data.t()}[name]

    return change


def through_data(part: str) -> Callable[[Layer], None]:
    def change(layer: Layer) -> None:
        rows = slice(None) if part == "all" else slice(SIZE // 2, None)
        layer.weight.data[rows].mul_(-1.5)

    return change


CHANGES: dict[str, Callable[[Layer], None]] = {
    "load_state_dict": load,
    "load_state_dict(assign=True)": lambda layer: load(layer, assign=True),
    "an optimizer": lambda layer: step(layer, foreach=False),
    "a foreach optimizer": lambda layer: step(layer, foreach=True),
    "a fused optimizer": lambda layer: step(layer, fused=True),
    "a fused optimizer alone": step_without_a_product,
    "in place": in_place,
    "in place, in inference mode": in_inference_mode,
    "another parameter": replace_parameter,
    "another parameter on the same memory": replace_parameter_on_the_same_memory,
    "weight.data = other": set_data("other"),
    "weight.data = weight.data.t()": set_data("transposed"),
    "weight.data, freed first": replace_at_the_same_address,
    "weight.data.mul_": through_data("all"),
    "weight.data[half].mul_": through_data("half"),
}


@KINDS
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_copy_is_never_stale(kind: type[Layer], change: Callable[[Layer], None]) -> None:
    layer = copied(kind)
    change(layer)
    assert_correct(layer)
    assert_correct(layer.requires_grad_(False))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_packing_again_copies_the_weight_as_it_is_now(change: Callable[[Layer], None]) -> None:
    layer = copied(FastLinear)
    change(layer)
    layer.requires_grad_(False).pack()
    assert_correct(layer)
    assert layer.packed is not None


@KINDS
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_another_dtype(kind: type[Layer], dtype: torch.dtype) -> None:
    layer = copied(kind).to(dtype)
    bar = {torch.float64: 1e-15, torch.bfloat16: 5e-3, torch.float16: 1e-3}[dtype]
    assert_correct(layer, 0.02 if kind is Int8Linear else bar)


@KINDS
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_duplicate_is_independent(kind: type[Layer], duplicate: Callable[[Layer], Layer]) -> None:
    layer = copied(kind)
    twin = duplicate(layer)
    assert held(twin) is None
    in_place(twin)
    assert_correct(twin)
    assert_correct(layer)


@KINDS
def test_a_gradient_is_that_of_the_weight(kind: type[Layer]) -> None:
    layer = copied(kind)
    x = inputs().requires_grad_(True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(5, -1), rtol=1e-4, atol=1e-3)


@KINDS
def test_an_unchanged_weight_keeps_its_copy(kind: type[Layer]) -> None:
    layer = copied(kind)
    before = held(layer)
    for _ in range(3):
        layer(inputs())
    layer.pack() if isinstance(layer, FastLinear) else layer.quantize()
    assert held(layer) is before


def test_trainable_weights_are_not_copied() -> None:
    layer = FastLinear(SIZE, SIZE)
    layer.pack()
    assert layer.packed is None
    with pytest.raises(RuntimeError, match="trainable"):
        Int8Linear(SIZE, SIZE).quantize()


def test_weights_of_inference_mode_are_not_copied() -> None:
    with torch.inference_mode():
        fast, int8 = (kind(SIZE, SIZE).requires_grad_(False) for kind in (FastLinear, Int8Linear))
        fast.pack()
        assert fast.packed is None
        assert_correct(fast)
        with pytest.raises(RuntimeError, match="inference_mode"):
            int8(inputs())


def test_int8_on_another_device_is_an_error() -> None:
    layer = copied(Int8Linear).to("meta")
    with pytest.raises(RuntimeError, match="no int8 products on meta"):
        layer(inputs().to("meta"))


# Whole models

CONFIG = GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=2)


def plain() -> GPT2:
    model = GPT2(CONFIG).requires_grad_(False)
    model.init_weights(0)
    return model


@pytest.mark.parametrize("swap", [kernels.swap_in, kernels.quantize], ids=["swap_in", "quantize"])
def test_a_swap_keeps_names_parameters_and_ties(swap: Callable[[nn.Module], None]) -> None:
    model = plain().eval()
    parameters = dict(model.named_parameters())
    modules = [name for name, _ in model.named_modules()]
    state = list(model.state_dict())
    swap(model)
    swap(model)
    assert [name for name, _ in model.named_modules()] == modules
    assert list(model.state_dict()) == state
    for name, parameter in model.named_parameters():
        assert parameter is parameters.pop(name)
    assert parameters == {}
    assert model.lm_head.weight is model.transformer.wte.weight
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert {type(module) for module in linear} == {FastLinear if swap is kernels.swap_in else Int8Linear}
    assert not any(module.training for module in linear)
    ids = torch.arange(16)[None]
    assert torch.allclose(model(ids), plain()(ids), atol=1e-6 if swap is kernels.swap_in else 0.05)


def test_loaded_models_have_the_fast_layers() -> None:
    model = model_of(plain().state_dict(), CONFIG)
    assert {type(module) for module in model.modules() if isinstance(module, nn.Linear)} == {FastLinear}


def test_a_quantised_model_follows_its_tied_embedding() -> None:
    model = plain()
    kernels.quantize(model)
    model.transformer.wte.weight.mul_(3)
    changed = plain()
    changed.load_state_dict(model.state_dict())
    ids = torch.arange(16)[None]
    assert torch.allclose(model(ids), changed(ids), atol=0.15)
    assert not torch.allclose(model(ids), plain()(ids), atol=0.3)


# Operators that are missing


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
