"""task=export: a conversion that is wrong in any way is not written, and the tables name what is wrong."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gpt2x.checkpoints.exporting import hf, onnx
from gpt2x.parity.conversion import certificate, own
from tests.conftest import assert_in, read_csv
from tests.tasks.test_export import certificate_in


def in_file(change: Callable[[dict[str, torch.Tensor]], None], folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def transpose(tensors: dict[str, torch.Tensor]) -> None:
    name = "transformer.h.1.attn.c_proj.weight"
    tensors[name] = tensors[name].t().contiguous()


def move_one_value(tensors: dict[str, torch.Tensor]) -> None:
    value = tensors["transformer.ln_f.weight"][:1]
    value.copy_(torch.from_numpy(np.nextafter(value.numpy(), np.float32(9))))


def negative_zero(tensors: dict[str, torch.Tensor]) -> None:
    tensors["transformer.h.0.ln_1.bias"][3] = -0.0


def in_config(change: dict[str, Any], folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def swap_merges(folder: Path) -> None:
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    lines[1:] = reversed(lines[1:])
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


WRONG = {
    "a transposed square matrix": (partial(in_file, transpose), ["h.1.attn.c_proj.weight wrong"]),
    "one value moved by one bit": (partial(in_file, move_one_value), ["ln_f.weight wrong"]),
    "another number of heads": (partial(in_config, {"n_head": 8}), ["another architecture", "n_head 8 instead of 4"]),
    "another epsilon": (
        partial(in_config, {"layer_norm_epsilon": 1e-3}),
        ["layer_norm_epsilon 0.001 instead"],
    ),
    "other merges": (swap_merges, ["another vocabulary, or other merges"]),
    "a truncated file": (truncate, ["model.safetensors: truncated"]),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_conversion_is_not_written(
    export_to: Any, launch: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    change, words = WRONG[mistake]
    write = hf.save_checkpoint

    def write_wrong(folder: Path, *args: Any) -> None:
        write(folder, *args)
        change(folder)

    monkeypatch.setattr(hf, "save_checkpoint", write_wrong)
    done = export_to("task.format=hf", "task.path=out")
    assert done.code == 1, done
    assert done.out.startswith("FAIL  out was not written, as it would be another model")
    assert_in(done.out, *words)
    assert ".tmp" not in done.out
    assert [each.name for each in launch.iterdir()] == ["run"]
    found = certificate_in(launch / "run")
    assert not found["passed"]
    assert found["readers"][0]["verdict"] == "fail"
    assert json.loads((launch / "run" / "job.json").read_text())["passed"] is False


def test_the_sign_of_zero_is_a_bit_too(export_to: Any, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = hf.save_checkpoint

    def with_zero(folder: Path, model: Any, *args: Any) -> None:
        with torch.no_grad():
            model.transformer.h[0].ln_1.bias[3] = 0.0  # in the source, too
        write(folder, model, *args)
        in_file(negative_zero, folder)

    monkeypatch.setattr(hf, "save_checkpoint", with_zero)
    assert export_to("task.format=hf").code == 1
    wrong = {row["tensor"] for row in read_csv(launch / "run" / "tensors.csv") if row["found"] != "equal"}
    assert wrong == {"transformer.h.0.ln_1.bias"}


def exact_gelu(graph: Any) -> None:
    for module in graph.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "none"


def swap_norms(graph: Any) -> None:
    first, second = graph.transformer.h[0], graph.transformer.h[1]
    first.ln_1.bias, second.ln_1.bias = second.ln_1.bias, first.ln_1.bias


def one_text_only(graph: Any) -> None:
    """Right for one text, and for texts that are equal."""
    forward = graph.transformer.wte.forward
    graph.transformer.wte.forward = lambda ids: forward(ids[:1].expand(ids.shape))


WRONG_GRAPHS = {
    "the exact GELU": (exact_gelu, ["onnx: logits differ by", "onnxruntime: logits differ by"]),
    "swapped biases": (
        swap_norms,
        ["onnx: 2 tensors wrong (transformer.h.0.ln_1.bias wrong, transformer.h.1.ln_1.bias wrong)"],
    ),
    "a batch of one text only": (one_text_only, ["onnx: logits differ by", "onnxruntime: logits differ by"]),
}


@pytest.mark.parametrize("mistake", WRONG_GRAPHS)
def test_a_wrong_graph_is_not_written(
    export_to: Any, launch: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    change, words = WRONG_GRAPHS[mistake]
    right = onnx._Graph

    def wrong(model: Any) -> Any:
        graph = right(model)
        change(graph)
        return graph

    monkeypatch.setattr(onnx, "_Graph", wrong)
    done = export_to("task.format=onnx", "task.path=out")
    assert done.code == 1, done
    assert_in(done.out, "FAIL  out was not written, as it would be another model", *words)
    assert [each.name for each in launch.iterdir()] == ["run"]


@pytest.mark.parametrize("origin", ["hf", "nanogpt"])
def test_an_independent_reader_that_disagrees_is_believed(
    export_to: Any, launch: Path, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    """gpt2x reads its own mistake back without noticing it; transformers does not, whatever the source was."""
    assert export_to(f"task.format={origin}", "task.path=origin").code == 0
    file = next(name for name in ("model.safetensors", "ckpt.pt") if (launch / "origin" / name).exists())
    write, read = hf.to_file, own.to_file

    def turned(model: Any) -> Any:
        return {name: t.flip(0) if name == "transformer.wpe.weight" else t for name, t in write(model).items()}

    monkeypatch.setattr(hf, "to_file", turned)
    monkeypatch.setattr(own, "to_file", lambda model: turned(model))
    assert export_to("task.format=hf", f"weights.path=origin/{file}").code == 1
    ours, transformers = read_csv(launch / "run" / "certificate.csv")
    assert read is write
    assert (ours["tensors_equal"], transformers["tensors_equal"], transformers["verdict"]) == ("28", "27", "fail")
    assert certificate_in(launch / "run")["confirmed_by"] == []


def test_a_reader_that_is_not_installed_confirms_nothing(
    export_to: Any, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setitem(sys.modules, "gpt2x.llamacpp", None)
    done = export_to("task.format=gguf")
    assert done.code == 0, done
    assert_in(done.out, "not installed    xllamacpp, which could confirm it: python -m pip install xllamacpp")
    found = certificate_in(launch / "run")
    assert ([each.split()[0] for each in found["confirmed_by"]], found["not_installed"]) == (["gguf"], ["xllamacpp"])


def test_onnxruntime_is_not_installed(export_to: Any, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = export_to("task.format=onnx")
    assert done.code == 0, done
    assert_in(done.out, "not installed    onnxruntime, which could confirm it: python -m pip install onnxruntime")
    assert [each.split()[0] for each in certificate_in(launch / "run")["confirmed_by"]] == ["onnx"]


def test_a_format_that_nobody_reads_is_not_written(
    export_to: Any, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "READERS", ())
    said = export_to("task.format=pt", "task.path=out").error()
    assert_in(said, "task.format=pt: no program that could read it back is installed")
    assert not (launch / "out").exists()
