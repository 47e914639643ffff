"""task=export: what it writes, who confirms it, and that a conversion that is wrong in any way is not written."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from gpt2x.checkpoints.exporting import hf
from gpt2x.tasks import export
from tests.conftest import Cli, FullDisk, Refused, assert_in, interrupt_at, read_csv, run_dir

LOSSLESS = ("hf", "pt", "nanogpt", "llmc", "gguf", "onnx")
INDEPENDENT = {
    "hf": ["transformers"],
    "pt": ["transformers"],
    "gguf": ["gguf", "llama.cpp"],
    "onnx": ["onnx", "onnxruntime"],
}
NEEDED = {"gguf": ("gguf", "xllamacpp"), "onnx": ("onnx", "onnxscript", "onnxruntime")}


def certificate_in(run: Path) -> Any:
    return json.loads((run / "certificate.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("format", LOSSLESS)
def test_a_format_that_loses_nothing(export_to: Any, launch: Path, format: str) -> None:
    for package in NEEDED.get(format, ()):
        pytest.importorskip(package)
    done = export_to(f"task.format={format}")
    assert (done.code, done.err) == (0, ""), done
    assert done.out.startswith("PASS  run/export is the same model: custom · ")
    rows = read_csv(launch / "run" / "certificate.csv")
    readers = INDEPENDENT.get(format, [])
    assert [(row["reader"], row["independent"], row["verdict"]) for row in rows] == [
        *([("gpt2x", "False", "pass")] if format != "onnx" else []),
        *((reader, "True", "pass") for reader in readers),
    ]
    if format != "onnx":
        assert (rows[0]["max_abs_logit_difference"], rows[0]["mean_kl"]) == ("0.0", "0.0")
    assert all(float(row["relative_difference"]) <= float(row["tolerance"]) for row in rows if row["reader"] != "gguf")
    assert all(row["tensors"] in ("", "28") and row["tensors"] == row["tensors_equal"] for row in rows)
    assert all(row["texts"] == row["texts_same"] != "0" for row in rows)
    assert {row["found"] for row in read_csv(launch / "run" / "tensors.csv")} == {"equal"}
    found = certificate_in(launch / "run")
    assert (found["passed"], [each.split()[0] for each in found["confirmed_by"]]) == (True, readers)
    assert sorted(each["name"] for each in found["files"]) == sorted(
        file.name for file in (launch / "run" / "export").iterdir()
    )
    assert ("no independent reader: it was read back by gpt2x alone" in done.out) == (not readers)


@pytest.mark.parametrize(
    ("format", "dtype", "rounded", "least", "most"),
    [
        ("hf", "float16", 28, 1e-5, 2**-11),
        ("hf", "bfloat16", 28, 1e-4, 2**-8),
        ("llmc", "bfloat16", 28, 1e-4, 2**-8),
        ("gguf", "float16", 9, 1e-5, 2**-11),
        ("gguf", "bfloat16", 9, 1e-4, 2**-8),
        ("gguf", "int8", 9, 1e-4, 0.6 / 127),
    ],
)
def test_a_format_that_rounds(
    export_to: Any, launch: Path, format: str, dtype: str, rounded: int, least: float, most: float
) -> None:
    """GGUF keeps all tensors but the matrices and the token embeddings in float32."""
    done = export_to(f"task.format={format}", f"dtype={dtype}")
    assert done.code == 0, done
    (own, *others) = read_csv(launch / "run" / "certificate.csv")
    assert (int(own["tensors_equal"]), int(own["tensors_rounded"])) == (28 - rounded, rounded)
    assert least < max(float(row["relative_error"]) for row in read_csv(launch / "run" / "tensors.csv")) <= most
    assert float(own["mean_kl"]) > 0
    assert own["relative_difference"] == "0.0"  # rounding is no error
    assert [row["verdict"] for row in others] == ["pass"] * len(INDEPENDENT.get(format, []))
    for row in others:
        assert row["relative_difference"] == "" or float(row["relative_difference"]) <= float(row["tolerance"])


def test_float64_is_not_called_equal_after_it_was_rounded(gpt2x: Cli, launch: Path, source: Path) -> None:
    folder = launch / "double"
    folder.mkdir()
    for name in ("config.json", "vocab.json", "merges.txt"):
        (folder / name).write_bytes((source / name).read_bytes())
    tensors = {
        name: tensor.double() + 1e-12 if tensor.ndim == 2 else tensor.double()
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for dtype, equal in [("float32", "18"), ("float64", "28")]:
        settings = (f"dtype={dtype}", f"weights.path={folder}", f"hydra.run.dir={dtype}")
        done = gpt2x("task=export", "task.format=hf", *settings)
        assert done.code == 0, done
        assert {row["tensors_equal"] for row in read_csv(launch / dtype / "certificate.csv")} == {equal}


def test_random_weights_are_exported_and_read_again(gpt2x: Cli, launch: Path) -> None:
    sizes = ("model=nano", "model.n_layer=1", "model.n_positions=64")
    assert gpt2x("task=export", "weights=random", *sizes, "task.format=pt", "task.path=out").code == 0
    assert sorted(file.name for file in (launch / "out").iterdir()) == [
        *("config.json", "merges.txt", "pytorch_model.bin", "tokenizer_config.json", "vocab.json")
    ]
    generated = gpt2x("task=generate", "prompt=Juliet", "decode.max_new_tokens=2", "weights.path=out/pytorch_model.bin")
    assert generated.code == 0


def test_weights_beyond_2_gb_lie_beside_the_graph(
    export_to: Any, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is torch's: here it is 10 kB. The graph names the other file, and both can be moved together."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 10_000)
    for _ in range(2):
        done = export_to("task.format=onnx", "task.path=out", "task.overwrite=true")
        assert done.code == 0, done
    names = {file.name for file in (launch / "out").iterdir()}
    assert names == {"model.onnx", "model.onnx.data", "vocab.json", "merges.txt", "tokenizer_config.json"}
    assert {each["name"] for each in certificate_in(launch / "run")["files"]} == names
    (launch / "out").rename(launch / "moved")
    assert (launch / "moved" / "model.onnx.data").stat().st_size > 10_000
    onnxruntime.InferenceSession(launch / "moved" / "model.onnx")


@pytest.mark.parametrize("args", [["task=inspect"], ["task=generate", "prompt=x"], ["task=export", "task.format=hf"]])
def test_onnx_is_not_read(refused: Refused, launch: Path, args: list[str]) -> None:
    file = launch.parent / "model.onnx"
    file.write_bytes(b"\x08\x0a")
    said = refused(*args, f"weights.path={file}")
    assert_in(said, "model.onnx: gpt2x writes ONNX files, but does not read them", "weights.path=FILE")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_what_onnx_needs(export_to: Any, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = export_to("task.format=onnx").error()
    assert_in(said, "task.format=onnx: needs a package", package, "python -m pip install 'gpt2x[onnx]'")


# The folder


def test_a_folder_is_replaced_only_when_asked(export_to: Any, launch: Path) -> None:
    assert export_to("task.format=hf", "task.path=out").code == 0
    again = export_to("task.format=pt", "task.path=out")
    assert_in(again.error(), "task.path=out: holds config.json already", "task.overwrite=true")
    assert (launch / "out" / "model.safetensors").is_file()
    assert export_to("task.format=pt", "task.path=out", "task.overwrite=true").code == 0
    assert (launch / "out" / "pytorch_model.bin").is_file()
    assert not (launch / "out" / "model.safetensors").exists()
    (launch / "out" / "thesis.tex").write_text("years of work")
    refused = export_to("task.format=hf", "task.path=out", "task.overwrite=true")
    assert_in(refused.error(), "holds thesis.tex, which no export writes")
    assert (launch / "out" / "thesis.tex").read_text() == "years of work"


def test_a_failed_replacement_keeps_the_old_folder(
    export_to: Any, launch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export_to("task.format=hf", "task.path=out").code == 0
    before = {file.name: file.read_bytes() for file in (launch / "out").iterdir()}
    write = hf.save_checkpoint

    def write_wrong(folder: Path, *args: Any) -> None:
        write(folder, *args)
        (folder / "model.safetensors").write_bytes(b"damaged")

    monkeypatch.setattr(hf, "save_checkpoint", write_wrong)
    assert export_to("task.format=hf", "task.path=out", "task.overwrite=true").code == 1
    assert {file.name: file.read_bytes() for file in (launch / "out").iterdir()} == before


def test_the_run_folder_is_used_again(export_to: Any, launch: Path) -> None:
    assert export_to("task.format=hf").code == export_to("task.format=pt").code == 0
    assert {file.name for file in (launch / "run" / "export").iterdir()} > {"pytorch_model.bin"}
    assert [each.name for each in (launch / "run").iterdir() if each.name.endswith(".tmp")] == []


def test_what_a_killed_run_left_is_removed(export_to: Any, launch: Path) -> None:
    left = launch / "run" / ".export.0123abcd.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_text("half of it")
    assert export_to("task.format=hf").code == 0
    assert not left.exists()


@pytest.mark.parametrize("function", ["exporter_for", "certify", "place"])
def test_an_interrupted_export_leaves_nothing(
    export_to: Any, launch: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    interrupt_at(export, function, 1, monkeypatch)
    assert export_to("task.format=hf", "task.path=out").code == 130
    assert not (launch / "out").exists()
    assert [each.name for each in launch.iterdir() if each.name.endswith(".tmp")] == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["task=export", "task.format=NAME", "hf, pt, nanogpt, llmc, gguf, onnx"]),
        (["task.format=ggfu"], ["task.format=ggfu", "did you mean 'gguf'?"]),
        (["task.format=hf", "dtype=int8"], ["dtype=int8", "float32 or float64", "int8 is for task.format=gguf"]),
        (["task.format=onnx", "dtype=float16"], ["task.format=onnx holds float32", "task.format=hf or pt"]),
        (["task.format=llmc", "dtype=float16"], ["task.format=llmc holds float32 or bfloat16"]),
        (["task.format=hf", "task.path=/dev/null"], ["task.path=/dev/null", "Not a directory"]),
        (["task.format=hf", "task.path=/proc/here"], ["cannot write /proc/here"]),
        (["task.format=hf", "device=cpu"], ["device", "task=export does not use it"]),
    ],
)
def test_bad_input_is_refused(refused: Refused, source: Path, args: list[str], words: list[str]) -> None:
    assert_in(refused("task=export", f"weights.path={source}", *args), *words)


def test_a_full_disk_is_reported_in_one_line(
    export_to: Any, launch: Path, monkeypatch: pytest.MonkeyPatch, full_disk: FullDisk
) -> None:
    monkeypatch.setattr("gpt2x.checkpoints.exporting.folder.os.urandom", lambda n: bytes(n))
    full_disk(launch / ".out.00000000.tmp" / "pytorch_model.bin")
    assert_in(export_to("task.format=pt", "task.path=out").error(), "cannot write", "pytorch_model.bin")
    assert not list(launch.glob("*out*"))


def test_a_sweep_over_formats(gpt2x: Cli, launch: Path, source: Path) -> None:
    done = gpt2x("-m", "task=export", f"weights.path={source}", "task.format=hf,pt", "hydra.sweep.dir=sweep")
    assert done.code == 0
    assert_in(done.out, "max error", "pass")
    rows = read_csv(launch / "sweep" / "certificate.csv")
    assert [(row["task.format"], row["reader"]) for row in rows] == [
        *(("hf", "gpt2x"), ("hf", "transformers"), ("pt", "gpt2x"), ("pt", "transformers"))
    ]


def test_the_run_folder_is_named_by_its_time(gpt2x: Cli, launch: Path, source: Path) -> None:
    done = gpt2x("task=export", f"weights.path={source}", "task.format=hf")
    assert_in(done.out, f"results in {run_dir(launch, 'export').relative_to(launch)}")
