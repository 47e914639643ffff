"""The lists of known mistakes: each changes what its module computes, and is undone afterwards."""

import pytest
import torch
from torch import Tensor, nn

from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.mistakes import MISTAKES, mistakes_in
from gpt2x.parity.mistakes.mistake import made
from gpt2x.parity.mistakes.wiring import wiring_mistakes

CONFIG = GPT2Config(vocab_size=60, n_positions=16, n_embd=48, n_layer=3, n_head=3)
IDS = torch.tensor([[5, 9, 5, 2, 7], [1, 0, 3, 3, 8]])


@pytest.fixture
def model() -> GPT2:
    """A model in float64 in which no tensor is neutral."""
    torch.manual_seed(0)
    model = GPT2(CONFIG).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.5)
    model.tie()
    return model


def same(actual: Tensor, expected: Tensor) -> bool:
    return torch.equal(actual.nan_to_num(1e9), expected)


@pytest.mark.parametrize(
    "site", ["wte", "ln_f", "h.0", "h.0.attn", "h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp", "h.0.mlp.act"]
)
def test_every_mistake_in_a_module_shows_and_is_undone(model: GPT2, site: str) -> None:
    module = model.transformer.get_submodule(site)
    x = IDS if site == "wte" else torch.randn(2, 5, CONFIG.n_embd, dtype=torch.float64)
    expected = module(x)
    mistakes = list(mistakes_in(module))
    assert len(mistakes) >= 6
    for mistake in mistakes:
        with made([mistake]):
            assert not same(module(x), expected), mistake.cause
        assert torch.equal(module(x), expected), mistake.cause


@pytest.mark.parametrize("inside", [True, False])
def test_every_mistake_in_the_wiring_shows_and_is_undone(model: GPT2, inside: bool) -> None:
    expected = model(IDS)
    mistakes = list(wiring_mistakes(model.transformer, [0, 2], inside))
    assert mistakes[0].cause.text == "layers skipped or repeated: h.0, h.2"
    assert (len(mistakes) > 200) == inside
    for mistake in mistakes:
        with made([mistake]):
            assert not same(model(IDS), expected), mistake.cause
        assert torch.equal(model(IDS), expected), mistake.cause


def test_a_mistake_is_undone_after_an_error(model: GPT2) -> None:
    expected = model(IDS)
    for mistake in wiring_mistakes(model.transformer, [2, 1, 0], inside=False):
        with pytest.raises(RuntimeError), made([mistake]):
            raise RuntimeError
    assert torch.equal(model(IDS), expected)


def test_a_subclass_has_the_mistakes_of_its_kind() -> None:
    class Fast(nn.Linear):
        """Computes the same in another way."""

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.t() + self.bias

    plain, fast = nn.Linear(4, 12), Fast(4, 12)
    causes = [mistake.cause.text for mistake in mistakes_in(plain)]
    assert "missing bias" in causes
    assert [mistake.cause.text for mistake in mistakes_in(fast)] == causes


def test_only_mistakes_that_a_module_can_have_are_tried() -> None:
    square = {mistake.cause.text for mistake in mistakes_in(nn.Linear(4, 4, bias=False))}
    assert "untransposed matrix" in square
    assert "missing bias" not in square
    assert not any("another order" in cause for cause in square)
    norms = [mistake.cause.text for mistake in mistakes_in(nn.LayerNorm(4, eps=1e-6))]
    assert "LayerNorm eps 1e-05 instead of 1e-06" in norms
    assert "LayerNorm eps 1e-06 instead of 1e-06" not in norms


def test_modules_of_no_known_kind_have_no_mistakes() -> None:
    assert list(mistakes_in(nn.Dropout())) == []


@pytest.mark.parametrize("kind", MISTAKES, ids=lambda kind: kind.__name__)
def test_rounding_is_tried_last(kind: type[nn.Module]) -> None:
    assert [mistake.cause.text for mistake in MISTAKES[kind][-6:]] == [
        f"{what} rounded to {dtype}" for dtype in ("float16", "bfloat16", "float32") for what in ("output", "input")
    ]
