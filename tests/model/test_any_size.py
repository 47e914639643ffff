"""What holds for any GPT-2, in float64: causality, the cache, and weights that survive a round trip."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import GPT2LMHeadModel

from gpt2x.checkpoints.exporting.hf import save_checkpoint
from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.model import ModelConfig
from gpt2x.config.weights import WeightsConfig
from gpt2x.decoding.engine import prefill
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.tokenizer import train_tokenizer

FEW = settings(deadline=None, derandomize=True, max_examples=30)
N_POSITIONS, VOCAB_SIZE = 12, 29
SEEDS = st.integers(0, 2**31)

configs = st.builds(
    lambda n_layer, n_head, width: GPT2Config(VOCAB_SIZE, N_POSITIONS, n_head * width, n_layer, n_head),
    n_layer=st.integers(1, 3),
    n_head=st.integers(1, 5),
    width=st.sampled_from([3, 4, 7]),  # a norm over 1 or 2 features leaves signs at most
)


def noisy_model(config: GPT2Config, seed: int = 0, dtype: torch.dtype = torch.float64) -> GPT2:
    """Noise in every parameter, biases and norms too."""
    model = GPT2(config).to(dtype).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.5, generator=generator)
    return model


@st.composite
def batches(draw, smallest: int = 1) -> torch.Tensor:
    """Token ids [B, T], from one token to the full context."""
    batch, length = draw(st.integers(1, 4)), draw(st.integers(smallest, N_POSITIONS))
    generator = torch.Generator().manual_seed(draw(SEEDS))
    return torch.randint(VOCAB_SIZE, (batch, length), generator=generator)


def assert_close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * b.abs().max().item())


@FEW
@given(config=configs, seed=SEEDS, ids=batches(smallest=2), data=st.data())
def test_later_tokens_change_no_earlier_logits(config, seed, ids, data):
    model = noisy_model(config, seed)
    cut = data.draw(st.integers(1, ids.shape[1] - 1))
    changed = ids.clone()
    changed[:, cut:] = (ids[:, cut:] + data.draw(st.integers(1, VOCAB_SIZE - 1))) % VOCAB_SIZE
    before, after = model(ids), model(changed)
    assert_close(after[:, :cut], before[:, :cut])
    assert not torch.equal(after[:, cut], before[:, cut])


def test_every_token_is_seen_by_all_later_ones():
    model = noisy_model(GPT2Config(VOCAB_SIZE, N_POSITIONS, 12, 1, 3))
    ids = torch.arange(N_POSITIONS)[None]
    before = model(ids)
    for i in range(N_POSITIONS):
        changed = ids.clone()
        changed[0, i] = VOCAB_SIZE - 1
        differs = (model(changed) - before)[0].abs().amax(-1) > 1e-9  # [T]
        assert differs.tolist() == [position >= i for position in range(N_POSITIONS)]


@FEW
@given(config=configs, seed=SEEDS, ids=batches())
def test_rows_of_a_batch_do_not_meet(config, seed, ids):
    model = noisy_model(config, seed)
    assert_close(torch.cat([model(row[None]) for row in ids]), model(ids))


def in_chunks(model: GPT2, ids: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    """Logits [B, T, V] of a prompt fed to the cache in pieces."""
    T = ids.shape[1]
    cache = model.new_cache(len(ids), N_POSITIONS)
    return torch.cat(
        [model(ids[:, start:stop], cache) for start, stop in itertools.pairwise([0, *cuts, T])],
        dim=1,
    )


@pytest.mark.parametrize("split", range(1, N_POSITIONS))
@pytest.mark.parametrize("batch", [1, 3])
def test_cached_equals_uncached_at_every_split(split, batch):
    model = noisy_model(GPT2Config(VOCAB_SIZE, N_POSITIONS, 12, 2, 3))
    ids = torch.randint(VOCAB_SIZE, (batch, N_POSITIONS), generator=torch.Generator().manual_seed(split))
    assert_close(in_chunks(model, ids, [split]), model(ids))


@FEW
@given(config=configs, seed=SEEDS, ids=batches(), data=st.data())
def test_cached_equals_uncached_in_any_chunks(config, seed, ids, data):
    model = noisy_model(config, seed)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, ids.shape[1] - 1)))) - {ids.shape[1]})
    assert_close(in_chunks(model, ids, cuts), model(ids))


@FEW
@given(config=configs, seed=SEEDS, ids=batches(), data=st.data())
def test_rows_of_any_lengths_go_on_together(config, seed, ids, data):
    model = noisy_model(config, seed)
    B, T = ids.shape
    lengths = data.draw(st.lists(st.integers(1, T), min_size=B, max_size=B))
    cache = model.new_cache(B, N_POSITIONS + T)
    prefill(model, [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)], cache)
    more = data.draw(st.integers(0, N_POSITIONS - max(lengths)))
    if more:
        logits = model(ids[:, :1].expand(B, more), cache)
        for row, length in enumerate(lengths):
            text = torch.cat([ids[row, :length], ids[row, :1].expand(more)])
            assert_close(logits[row], model(text[None])[0, length:])


def reload(path) -> GPT2:
    weights = WeightsConfig(source="local", path=str(path))
    return load_checkpoint(ModelConfig(name="auto"), weights, torch.float32, torch.device("cpu")).model


def assert_same_bits(a: GPT2, b: GPT2) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert tensor.shape == theirs[name].shape, name
        assert torch.equal(tensor.contiguous().view(torch.int32), theirs[name].contiguous().view(torch.int32)), name


def small_config(n_layer: int = 2, n_head: int = 2) -> GPT2Config:
    return GPT2Config(vocab_size=257, n_positions=N_POSITIONS, n_embd=4 * n_head, n_layer=n_layer, n_head=n_head)


@FEW
@given(
    n_layer=st.integers(1, 3),
    n_head=st.integers(1, 3),
    seed=SEEDS,
    numbers=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4),
)
def test_saved_weights_load_bit_for_bit(tmp_path_factory, n_layer, n_head, seed, numbers):
    """The largest and the smallest float32 and -0 too."""
    model = noisy_model(small_config(n_layer, n_head), seed, torch.float32)
    for parameter in model.parameters():
        parameter.view(-1)[:4] = torch.tensor(numbers)
    folder = tmp_path_factory.mktemp("round_trip")
    save_checkpoint(folder, model, train_tokenizer("", 257), torch.float32)
    again = reload(folder)
    assert again.config == model.config
    assert_same_bits(again, model)
    assert again.lm_head.weight is again.transformer.wte.weight


@pytest.mark.parametrize("prefix", ["transformer.", ""])
@pytest.mark.parametrize("extras", [(), ("head",), ("masks",), ("head", "masks")], ids=str)
def test_keys_load_with_and_without_transformer(tmp_path, prefix, extras):
    model = noisy_model(small_config(), dtype=torch.float32)
    save_checkpoint(tmp_path, model, train_tokenizer("", 257), torch.float32)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        state = {name.replace("transformer.", prefix, 1): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if "head" in extras:
        state["lm_head.weight"] = state[f"{prefix}wte.weight"]
    if "masks" in extras:
        for layer in range(model.config.n_layer):
            state[f"{prefix}h.{layer}.attn.bias"] = torch.ones(1, 1, N_POSITIONS, N_POSITIONS).tril()
            state[f"{prefix}h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(state, tmp_path / "state_dict.pt")
    assert_same_bits(reload(tmp_path / "state_dict.pt"), model)


def test_files_hold_conv1d_matrices_transposed_and_nothing_else(tmp_path):
    model = noisy_model(small_config(n_layer=1), dtype=torch.float32)
    save_checkpoint(tmp_path, model, train_tokenizer("", 257), torch.float32)
    ours = model.state_dict()
    conv1d = {f"transformer.h.0.{part}.weight" for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
        for name in names:
            assert torch.equal(file.get_tensor(name), ours[name].t() if name in conv1d else ours[name]), name
    assert names == set(ours) - {"lm_head.weight"}


def test_transformers_reads_what_is_saved(tmp_path):
    model = noisy_model(small_config(n_layer=3, n_head=3), dtype=torch.float32)
    save_checkpoint(tmp_path, model, train_tokenizer("", 257), torch.float32)
    hf, info = GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float64, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.arange(N_POSITIONS)[None]
    with torch.inference_mode():
        assert_close(model.double()(ids), hf.eval()(ids).logits)
