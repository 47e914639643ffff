"""What exports write, read by small readers of the formats' own definitions, which share no code with gpt2x."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from torch import nn
from torch.nn import functional as F

from gpt2x.checkpoints.exporting import EXPORTERS, check_range, exporter_for
from gpt2x.checkpoints.load import Checkpoint, load_checkpoint, model_of
from gpt2x.checkpoints.names import to_file
from gpt2x.config.model import ModelConfig
from gpt2x.config.tasks.export import FORMATS
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.tokenizer import load_tokenizer
from tests.conftest import REPO, save_distinct

IDS = torch.tensor([[5, 72, 9, 100, 101, 33, 250, 299]])


@pytest.fixture(scope="module")
def tiny(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """300 tokens, width 32, in float32, with all biases and norms different."""
    folder = tmp_path_factory.mktemp("noisy")
    save_distinct(folder, tiny_dir)
    return load_checkpoint(
        ModelConfig("auto"), WeightsConfig("local", str(folder)), torch.float32, torch.device("cpu"), shared=False
    )


def written(tiny: Checkpoint, folder: Path, format: str, dtype: str = "float32") -> Path:
    exporter = exporter_for(format, dtype)
    exporter.check(tiny.model, tiny.tokenizer, dtype)
    exporter.write(folder, tiny.model, tiny.tokenizer, dtype)
    return folder / exporter.weights


class NanoBlock(nn.Module):
    """A block with the names of nanoGPT's model.py, but GPT-2's GELU."""

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.ln_1, self.ln_2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.c_attn, self.attn.c_proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(n_embd, 4 * n_embd), nn.Linear(4 * n_embd, n_embd)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = [each.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for each in self.qkv(x)]
        y = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.attn.c_proj(y)
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x)), approximate="tanh"))

    def qkv(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.attn.c_attn(self.ln_1(x)).chunk(3, dim=-1)


class Nano(nn.Module):
    """The model that nanoGPT's `model_args` describe."""

    def __init__(
        self, n_layer: int, n_head: int, n_embd: int, block_size: int, bias: bool, vocab_size: int, dropout: float
    ) -> None:
        super().__init__()
        assert (bias, dropout) == (True, 0.0)
        self.transformer = nn.Module()
        self.transformer.wte, self.transformer.wpe = nn.Embedding(vocab_size, n_embd), nn.Embedding(block_size, n_embd)
        self.transformer.h = nn.ModuleList(NanoBlock(n_embd, n_head) for _ in range(n_layer))
        self.transformer.ln_f = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.transformer.wte(ids) + self.transformer.wpe(torch.arange(ids.shape[1]))
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))


@torch.inference_mode()
def test_a_model_with_the_names_of_nanogpt_loads_it(tiny: Checkpoint, tmp_path: Path) -> None:
    saved = torch.load(written(tiny, tmp_path, "nanogpt"), weights_only=True)
    model = Nano(**saved["model_args"])
    model.load_state_dict(saved["model"])  # strict
    expected = double(tiny)(IDS)
    assert (model.double()(IDS) - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert saved["model"]["lm_head.weight"].data_ptr() == saved["model"]["transformer.wte.weight"].data_ptr()


def double(checkpoint: Checkpoint) -> GPT2:
    state = {n: t.double() for n, t in checkpoint.model.state_dict().items() if n != "lm_head.weight"}
    return model_of(state, checkpoint.model.config)


@pytest.mark.parametrize("format", ["pt", "nanogpt"])
def test_a_file_of_torch_is_as_large_as_its_tensors(tiny: Checkpoint, tmp_path: Path, format: str) -> None:
    """torch.save stores all of the memory that a tensor is a view of, and the head and wte once."""
    state = {name: tensor for name, tensor in tiny.model.state_dict().items() if name != "lm_head.weight"}
    memory = torch.cat([*(tensor.flatten() for tensor in state.values()), torch.zeros(1_000_000)])
    parts = memory.split([*(tensor.numel() for tensor in state.values()), 1_000_000])[:-1]
    views = {name: part.view(state[name].shape) for name, part in zip(state, parts, strict=True)}
    model = model_of(views, tiny.model.config)
    size = sum(4 * tensor.numel() for tensor in state.values())
    file = written(replace(tiny, model=model), tmp_path, format)
    assert size <= file.stat().st_size <= size + 600 * len(state)


@pytest.mark.parametrize(("dtype", "version", "width"), [("float32", 3, 4), ("bfloat16", 5, 2)])
def test_model_bin_is_laid_out_as_llm_c_reads_it(
    tiny: Checkpoint, tmp_path: Path, dtype: str, version: int, width: int
) -> None:
    content = written(tiny, tmp_path, "llmc", dtype).read_bytes()
    header = struct.unpack("<256i", content[:1024])
    assert header[:8] == (20240326, version, 64, 300, 2, 4, 32, 384)
    assert not any(header[8:])
    raw = torch.frombuffer(bytearray(content[1024:]), dtype=getattr(torch, dtype))
    state, at = tiny.model.state_dict(), 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal at
        at += int(np.prod(shape))
        return raw[at - int(np.prod(shape)) : at].view(shape)

    L, C, Vp, T = 2, 32, 384, 64
    wte = take(Vp, C)
    assert torch.equal(wte[:300], state["transformer.wte.weight"].to(raw.dtype))
    assert not wte[300:].any()
    assert torch.equal(take(T, C), state["transformer.wpe.weight"].to(raw.dtype))
    # fill_in_parameter_sizes in llm.c's train_gpt2.c
    kinds = [
        *(
            ("ln_1.weight", (C,)),
            ("ln_1.bias", (C,)),
            ("attn.c_attn.weight", (3 * C, C)),
            ("attn.c_attn.bias", (3 * C,)),
        ),
        *(("attn.c_proj.weight", (C, C)), ("attn.c_proj.bias", (C,)), ("ln_2.weight", (C,)), ("ln_2.bias", (C,))),
        *(("mlp.c_fc.weight", (4 * C, C)), ("mlp.c_fc.bias", (4 * C,))),
        *(("mlp.c_proj.weight", (C, 4 * C)), ("mlp.c_proj.bias", (C,))),
    ]
    for name, shape in kinds:
        found = take(L, *shape)
        for layer in range(L):
            assert torch.equal(found[layer], state[f"transformer.h.{layer}.{name}"].to(raw.dtype)), name
    for name in ("transformer.ln_f.weight", "transformer.ln_f.bias"):
        assert torch.equal(take(C), state[name].to(raw.dtype))
    assert at * width == len(content) - 1024


def test_gpt2_tokenizer_bin_has_the_bytes_of_tiktoken(tmp_path: Path) -> None:
    folder = REPO / "data" / "gpt2"
    config = GPT2Config(n_positions=8, n_embd=2, n_layer=1, n_head=1)
    exporter_for("llmc", "float32").write(tmp_path, GPT2(config), load_tokenizer(folder), "float32")
    content = (tmp_path / "gpt2_tokenizer.bin").read_bytes()
    assert struct.unpack("<4i", content[:16]) == (20240328, 2, 50257, 50256)
    tokens, at = [], 1024
    while at < len(content):
        tokens.append(content[at + 1 : at + 1 + content[at]])
        at += 1 + content[at]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")
        ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "merges.txt"), str(folder / "vocab.json"))
    assert tokens == [*ranks, b"<|endoftext|>"]


def test_a_padded_vocabulary_has_one_token_per_row(tiny: Checkpoint, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    model = GPT2(GPT2Config(vocab_size=320, n_positions=8, n_embd=32, n_layer=1, n_head=1))
    exporter_for("gguf", "float32").write(tmp_path, model, tiny.tokenizer, "float32")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    assert (len(tokens), len(set(tokens)), tokens[300]) == (320, 320, "[PAD300]")
    assert types == [3] + [1] * 299 + [5] * 20  # control, normal, unused


@torch.inference_mode()
@pytest.mark.parametrize(("B", "T"), [(1, 1), (1, 64), (5, 1), (3, 17)])
def test_a_graph_computes_texts_of_any_number_and_length(graph: Path, tiny: Checkpoint, B: int, T: int) -> None:
    session = pytest.importorskip("onnxruntime").InferenceSession(graph)
    ids = torch.randint(300, (B, T), generator=torch.Generator().manual_seed(T))
    (logits,) = session.run(None, {"input_ids": ids.numpy()})
    expected = double(tiny)(ids)
    assert np.abs(logits - expected.numpy()).max() <= 1e-5 * expected.abs().max()


def test_a_graph_has_the_tensors_of_hugging_face_and_no_paths(graph: Path, tiny: Checkpoint) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(graph)
    onnx.checker.check_model(model, full_check=True)
    ends = [(end.name, end.type.tensor_type) for end in (*model.graph.input, *model.graph.output)]
    assert [(name, [dim.dim_param or dim.dim_value for dim in kind.shape.dim]) for name, kind in ends] == [
        ("input_ids", ["batch", "tokens"]),
        ("logits", ["batch", "tokens", 300]),
    ]
    large = {each.name: list(each.dims) for each in model.graph.initializer if np.prod(each.dims) > 1}
    assert large == {name: list(tensor.shape) for name, tensor in to_file(tiny.model).items()}
    assert b".py" not in graph.read_bytes()


@pytest.fixture(scope="module")
def graph(tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    return written(tiny, tmp_path_factory.mktemp("graph"), "onnx")


def test_every_format_is_listed() -> None:
    assert tuple(exporter.name for exporter in EXPORTERS) == FORMATS


@pytest.mark.parametrize("format", ["nanogpt", "llmc"])
def test_another_epsilon_is_refused(tiny: Checkpoint, format: str) -> None:
    model = GPT2(GPT2Config(300, 8, 4, 1, 1, layer_norm_epsilon=1e-6))
    with pytest.raises(UserError, match=r"layer_norm_epsilon=1e-05, and this model has 1e-06; use task\.format=hf"):
        exporter_for(format, "float32").check(model, tiny.tokenizer, "float32")


def test_blocks_of_q8_0_must_fit(tiny: Checkpoint) -> None:
    pytest.importorskip("gguf")
    with pytest.raises(UserError, match="n_embd=48 is no multiple of 32"):
        exporter_for("gguf", "int8").check(GPT2(GPT2Config(300, 8, 48, 1, 1)), tiny.tokenizer, "int8")


@pytest.mark.parametrize(
    ("format", "dtype", "value", "most"),
    [("hf", "float16", 7e4, "6.55e+04 of float16"), ("gguf", "int8", 9e6, "8.319e+06 of int8")],
)
def test_a_value_beyond_the_dtype_is_refused(format: str, dtype: str, value: float, most: str) -> None:
    model = GPT2(GPT2Config(300, 8, 32, 1, 1))
    model.init_weights(0)
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[3, 4] = -value
    with pytest.raises(UserError) as raised:
        check_range(model, exporter_for(format, dtype), dtype)
    assert "transformer.h.0.mlp.c_fc.weight holds" in str(raised.value)
    assert most in str(raised.value)


def test_dtypes_of_formats() -> None:
    for format, dtype, words in [("hf", "int8", "task.format=gguf"), ("llmc", "float16", "float32 or bfloat16")]:
        with pytest.raises(UserError, match=words):
            exporter_for(format, dtype)
