"""The model against transformers' GPT2LMHeadModel with the same weights."""

from pathlib import Path

import pytest
import torch

from gpt2x.checkpoints.load import empty_model, load_checkpoint
from gpt2x.checkpoints.sizes import known_sizes
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.decoding import engine
from gpt2x.model import gpt2
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.tokenizer import train_tokenizer
from tests.conftest import tiny_hf


def pair(folder: Path, dtype: torch.dtype, **settings):
    """A transformers model with noise in every parameter, and ours loaded from what it saves."""
    hf = tiny_hf(**settings)
    with torch.no_grad():
        for parameter in hf.parameters():  # fresh biases are 0 and norms 1: a lost one would not show
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    hf.save_pretrained(folder)
    train_tokenizer("", 257).save(folder)
    weights = WeightsConfig(source="local", path=str(folder))
    ours = load_checkpoint(ModelConfig(name="auto"), weights, dtype, torch.device("cpu")).model
    return ours, hf.to(dtype)


def random_ids(batch: int, length: int, vocab_size: int = 300) -> torch.Tensor:
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(length))


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


ARCHITECTURES = [
    {"n_layer": 1},
    {"n_layer": 4},
    {"n_embd": 48, "n_head": 3},
    {"n_embd": 35, "n_head": 5},
    {"n_head": 1},
    {"vocab_size": 257},
    {"vocab_size": 1009, "n_layer": 3},
    {"n_positions": 7},
    {"layer_norm_epsilon": 0.1},
]


@pytest.mark.parametrize(("dtype", "bar"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("settings", ARCHITECTURES, ids=str)
@torch.inference_mode()
def test_logits_equal_transformers(tmp_path, settings, dtype, bar):
    ours, hf = pair(tmp_path, dtype, **settings)
    for batch, length in [(1, 1), (3, 5), (2, hf.config.n_positions)]:  # up to the full context
        ids = random_ids(batch, length, hf.config.vocab_size)
        logits = ours(ids)
        assert logits.shape == (batch, length, hf.config.vocab_size)
        assert logits.dtype == dtype
        assert relative_difference(logits, hf(ids).logits) <= bar


def test_past_the_context_is_refused(tmp_path):
    ours, hf = pair(tmp_path, torch.float32, n_positions=8)
    with pytest.raises(ValueError, match="9 tokens do not fit in n_positions 8"):
        ours(random_ids(1, hf.config.n_positions + 1))


@torch.inference_mode()
@pytest.mark.parametrize("lengths", [[1, 4, 9, 9, 2], [9, 9, 4, 1], [3], [200, 200, 150, 180, 1]])
def test_prompts_of_any_lengths_together_are_each_alone_in_transformers(tmp_path, lengths):
    ours, hf = pair(tmp_path, torch.float64, n_positions=256)
    texts = [row[:length].tolist() for row, length in zip(random_ids(len(lengths), max(lengths)), lengths, strict=True)]
    texts[-1] = list(texts[0])  # equal prompts, apart or side by side
    cache = ours.new_cache(len(texts), max(lengths) + 3)
    logits = engine.prefill(ours, texts, cache)
    for _ in range(3):
        assert cache.lengths == tuple(len(text) for text in texts)
        for row, text in enumerate(texts):
            assert relative_difference(logits[row], hf(torch.tensor([text])).logits[0, -1]) <= 1e-12
        tokens = logits.argmin(-1).tolist()
        logits = engine.decode_one_token(ours, tokens, cache)
        texts = [[*text, token] for text, token in zip(texts, tokens, strict=True)]


@torch.inference_mode()
def test_a_cut_row_forgets(tmp_path):
    """Lowering a length drops a row's last tokens, whatever the others hold, and however many come next."""
    ours, hf = pair(tmp_path, torch.float64)
    kept, dropped, more = random_ids(3, 4), random_ids(3, 5), random_ids(3, 3)
    cache = ours.new_cache(3, 12)
    ours(torch.cat([kept, dropped], 1), cache)
    cache.truncate([4, 9, 2])
    logits = ours(more, cache)
    texts = [torch.cat([kept, dropped], 1)[row, :length] for row, length in enumerate([4, 9, 2])]
    for row, text in enumerate(texts):
        expected = hf(torch.cat([text, more[row]])[None]).logits[0, -3:]
        assert relative_difference(logits[row], expected) <= 1e-12


def test_only_the_cache_changes_its_lengths(tmp_path):
    cache = pair(tmp_path, torch.float64)[0].new_cache(3, 12)
    cache.add_rows([4, 9, 2])
    cache.advance(2)
    assert cache.lengths == (6, 11, 4)
    with pytest.raises(AttributeError):
        cache.lengths = (1, 1, 1)
    for lengths in ([6, 12, 4], [6, 11], [7, 3, 3]):
        with pytest.raises(ValueError, match=r"truncate|zip"):
            cache.truncate(lengths)
    cache.truncate([6, 0, 3])
    cache.remove(0)
    assert cache.lengths == (3, 0)
    cache.reorder(torch.tensor([0, 0, 1]))
    assert cache.lengths == (3, 3, 0)
    assert cache.unused(1).lengths == ()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("distilgpt2", 81_912_576),
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_parameter_counts_are_the_published_models(name, count):
    model = empty_model(known_sizes()[name])
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_modules_and_parameters_have_transformers_names():
    hf = tiny_hf()
    ours = GPT2(GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=4))
    assert sorted(name for name, _ in ours.named_modules()) == sorted(name for name, _ in hf.named_modules())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in hf.named_parameters()]
    assert set(ours.state_dict()) == set(hf.state_dict())


def test_head_is_tied():
    model = GPT2(GPT2Config(vocab_size=30, n_positions=4, n_embd=8, n_layer=1, n_head=2))
    assert model.lm_head.weight is model.transformer.wte.weight


def test_model_package_can_be_read_in_one_sitting():
    files = list(Path(gpt2.__file__).parent.glob("*.py"))
    assert len(files) >= 4
    assert sum(len(file.read_text().splitlines()) for file in files) < 300
    assert not any("kernels" in file.read_text() for file in files)


CONFIG = GPT2Config(vocab_size=500, n_positions=64, n_embd=96, n_layer=3, n_head=3)


def initialised(seed: int) -> dict[str, torch.Tensor]:
    model = GPT2(CONFIG)
    model.init_weights(seed)
    return model.state_dict()


def test_init_weights_depends_on_the_seed_alone():
    torch.manual_seed(1)
    a = initialised(0)
    torch.manual_seed(2)
    b, c = initialised(0), initialised(1)
    assert all(torch.equal(a[name], b[name]) for name in a)
    matrices = [name for name in a if a[name].ndim == 2]
    assert not any(torch.equal(a[name], c[name]) for name in matrices)


def test_init_weights_has_gpt2s_spread():
    for name, tensor in initialised(0).items():
        if tensor.ndim == 1:
            assert (tensor == float(".ln_" in name and name.endswith("weight"))).all(), name
        else:
            std = 0.02 / 6**0.5 if "c_proj" in name else 0.02  # 6: two additions to the residual stream a layer
            assert tensor.std().item() == pytest.approx(std, rel=0.05), name
            assert abs(tensor.mean().item()) < 0.05 * std, name
