"""llama.cpp as an engine of benchmark: the file that it reads, and the tokens that it generates."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt2x.benchmark.engines import Variant
from gpt2x.benchmark.engines import transformers as reference
from gpt2x.benchmark.measure import draw_prompts
from gpt2x.benchmark.worker import Worker
from tests.conftest import tiny_hf

gguf = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
llamacpp = pytest.importorskip("gpt2x.benchmark.engines.llamacpp")


@pytest.fixture
def folder(tiny_dir: Path, tmp_path: Path) -> Path:
    """A checkpoint of 300 tokens and width 32, to write into."""
    return shutil.copytree(tiny_dir, tmp_path / "checkpoint")


def load(folder: Path, dtype: str) -> Any:
    """With one thread: llama.cpp's threads wait for each other without giving up their cores, which tests share."""
    llamacpp.convert(folder, dtype)
    return llamacpp.Engine(folder, dtype, 1)


def test_it_generates_the_tokens_of_transformers(folder: Path) -> None:
    engine = load(folder, "float32")
    prompts = draw_prompts(5, 4, 300, seed=0)
    expected = reference.Engine(folder, "float32", 1).generate(prompts, 6)
    assert len({tuple(row) for row in expected}) > 1
    assert engine.generate(prompts, 6) == expected
    assert engine.generate(prompts, 6) == expected  # on a server that knows the prompts
    assert engine.generate(prompts[2:3], 6) == expected[2:3]
    assert engine.generate(prompts[2:], 1) == [row[:1] for row in expected[2:]]


def test_the_end_of_text_neither_stops_it_nor_is_forbidden(folder: Path) -> None:
    model = tiny_hf(eos_token_id=0, bos_token_id=0)
    with torch.no_grad():  # whatever comes in, token 0 comes out
        model.transformer.wte.weight[0] = 1.0
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
    model.save_pretrained(folder)
    assert load(folder, "float32").generate([[5, 6], [7, 8]], 5) == [[0] * 5] * 2


def test_float16_and_int8_answer_too(folder: Path) -> None:
    for dtype in ("float16", "int8"):
        rows = load(folder, dtype).generate(draw_prompts(2, 4, 300, seed=0), 3)
        assert [len(row) for row in rows] == [3, 3]
        assert all(0 <= id < 300 for row in rows for id in row)


@pytest.mark.parametrize(
    ("dtype", "kind", "tolerance"), [("float32", "F32", 0), ("float16", "F16", 2**-11), ("int8", "Q8_0", 1 / 127)]
)
def test_matrices_are_in_the_dtype_and_the_rest_in_float32(
    folder: Path, dtype: str, kind: str, tolerance: float
) -> None:
    llamacpp.convert(folder, dtype)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(folder / f"{dtype}.gguf").tensors}
    matrices = {"token_embd.weight"} | {
        f"blk.{layer}.{name}.weight" for layer in (0, 1) for name in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
    }
    types = {name: tensor.tensor_type.name for name, tensor in tensors.items()}
    assert types == {name: kind if name in matrices else "F32" for name in tensors}
    assert len(tensors) == 4 + 2 * 12  # two embeddings, and the last norm; the head is token_embd
    model = tiny_hf(eos_token_id=0, bos_token_id=0).transformer
    for name, expected in [
        ("token_embd.weight", model.wte.weight),
        ("blk.1.ffn_down.weight", model.h[1].mlp.c_proj.weight.T),
        ("position_embd.weight", model.wpe.weight),
    ]:
        values = gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)
        largest = expected.abs().max().item()
        bound = tolerance * largest if name in matrices else 0
        assert np.abs(values - expected.detach().numpy()).max() <= bound


@pytest.mark.parametrize("package", ["xllamacpp", "gguf"])
def test_without_one_of_its_packages_it_is_not_installed(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{package}.py").write_text("raise ImportError('no such package')")
    monkeypatch.syspath_prepend(tmp_path)
    with Worker(Variant("llamacpp", "float32"), tmp_path, 1) as worker:
        assert worker.unavailable() == "not installed (no such package)"
