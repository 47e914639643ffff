"""Swapped-in layers: copies of a weight that are never stale."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gpt2x.checkpoints.load import model_of
from gpt2x.model import kernels
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.model.kernels.linear import FastLinear
from tests.model.layers import BARS, SIZE, Layer, assert_correct, copied, held, inputs

KINDS = pytest.mark.parametrize("kind", BARS)

# The rows that change: none of them is among those that a WeightCopy compares.
ROWS = slice(1, None, 2)


def other_weight(layer: Layer) -> Tensor:
    weight = layer.weight.detach().clone()
    weight[ROWS] = torch.randn(SIZE // 2, SIZE, generator=torch.Generator().manual_seed(2))
    return weight


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
