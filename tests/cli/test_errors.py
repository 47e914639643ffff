"""Bad input: one line on stderr that names it, exit code 2, no traceback, nothing half-written; a bug stays a bug."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException

from gpt2x.cli import hydra_app
from tests.conftest import NANO, Cli, FullDisk, Refused, assert_in, run_dir

# The command line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["task=genrate"], ["task=genrate", "validate", "did you mean 'generate'?"]),
        (["model=gpt2-midium"], ["model=gpt2-midium", "nano", "did you mean 'gpt2-medium'?"]),
        (["weights=locl"], ["weights=locl", "random", "did you mean 'local'?"]),
        (["decode=greddy"], ["decode=greddy", "sample", "did you mean 'greedy'?"]),
        (["device=cudda"], ["device=cudda", "did you mean 'cuda'?"]),
        (["dtype=float33"], ["dtype=float33", "bfloat16", "did you mean 'float32'?"]),
        (["top_p=0.9"], ["top_p", "did you mean 'decode.top_p'?"]),
        (["decod.top_p=0.9"], ["decod.top_p", "did you mean 'decode.top_p'?"]),
        (["+top_p=0.9"], ["top_p", "did you mean 'decode.top_p'?"]),
        (["++decode.topp=0.9"], ["decode.topp", "did you mean 'decode.top_p'?"]),
        (["decode.max_new_tokens=abc"], ["decode.max_new_tokens", "'abc'"]),
        (["seed=x"], ["seed", "'x'"]),
        (["seed=${nowhere}"], ["seed", "nowhere"]),
        (["decode=null"], ["decode"]),
        (["--foo"], ["--foo"]),
        (["task=generate", "=3"], ["=3"]),
        (["prompt=5"], ["prompt=5", "'prompt=\"5\"'"]),
        (["prompt=true"], ["prompt=true", "'prompt=\"true\"'"]),
        (['prompt=["a",1]'], ["prompt: entry 2 is 1, not text", 'write "1"']),
        (["prompt=[a,[b]]"], ["prompt: ['b'] is not text"]),
        (['prompt="a'], ['prompt="a', """'prompt="\\"a"'""", "prompt_file=FILE"]),
        (["prompt=a,b"], ["prompt=a,b"]),
        (["prompt=a", "prompts_file=b.txt"], ["prompt and prompts_file"]),
        (["generate"], ["use settings: gpt2x task=generate"]),
        (["~prompt"], ["~prompt"]),
        (["task.name=foo"], ["task=foo", "validate"]),
        (["-m", "+top_p=0.1,0.9"], ["top_p", "did you mean 'decode.top_p'?"]),
        (["task=train", "task.data=x", "task.beta2=1"], ["task.beta2=1", "below 1"]),
        (["weights.seed=99999999999999999999999"], ["weights.seed", "2**63"]),
        (["weights=auto", "model=nano", "weights.revision=abc"], ["weights.revision=abc", "nano"]),
        (["hydra.run.dir=/proc/nowhere"], ["/proc/nowhere", "hydra.run.dir"]),
        ([f"weights.path={'x' * 300}"], ["weights.path=xxx", "too long"]),
        (["weights=random"], ["model=auto", "model=nano"]),
        (["model=nano", "weights=random", "weights.path=x.pt"], ["weights.path", "weights=random"]),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else None,
)
def test_bad_command_line(refused: Refused, args: list[str], words: list[str]) -> None:
    assert_in(refused(*args), *words)


def test_a_process_exits_with_the_code(gpt2x_process: Cli, launch: Path) -> None:
    assert_in(gpt2x_process("task=genrate").error(), "task=genrate")
    assert list(launch.iterdir()) == []


def test_device_that_is_absent(refused: Refused) -> None:
    assert not torch.cuda.is_available()  # tests/conftest.py hides it
    assert_in(refused("task=generate", "device=cuda"), "device=cuda", "device=cpu")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["decode.temperature=0"], ["decode.temperature=0", "decode.greedy=true"]),
        (["decode.temperature=-1"], ["decode.temperature=-1"]),
        (["decode.temperature=nan"], ["decode.temperature=nan"]),
        (["decode.top_p=0"], ["decode.top_p=0"]),
        (["decode.top_p=1.5"], ["decode.top_p=1.5", "at most 1"]),
        (["decode.top_p=nan"], ["decode.top_p=nan"]),
        (["decode.top_k=0"], ["decode.top_k=0", "at least 1"]),
        (["decode.max_new_tokens=0"], ["decode.max_new_tokens=0", "at least 1"]),
        (["decode.num_samples=0"], ["decode.num_samples=0", "at least 1"]),
        (["batch_size=0"], ["batch_size=0", "at least 1"]),
        (["seed=-1"], ["seed=-1", "at least 0"]),
        (["decode=greedy", "decode.top_p=0.9"], ["decode.greedy=true", "decode.top_p=0.9"]),
        (["decode=greedy", "decode.temperature=0.5"], ["decode.greedy=true", "decode.temperature=0.5"]),
        (["decode=greedy", "decode.num_samples=2"], ["decode.greedy=true", "decode.num_samples=2"]),
        (["decode=greedy", "decode.top_k=2"], ["decode.greedy=true", "decode.top_k=2"]),
        (["decode=greedy", "decode.min_p=0.1"], ["decode.greedy=true", "decode.min_p=0.1"]),
        (["decode=greedy", "decode.typical_p=0.1"], ["decode.greedy=true", "decode.typical_p=0.1"]),
        (["decode.min_p=0"], ["decode.min_p=0", "at most 1"]),
        (["decode.min_p=1.1"], ["decode.min_p=1.1", "at most 1"]),
        (["decode.typical_p=0"], ["decode.typical_p=0", "at most 1"]),
        (["decode.typical_p=nan"], ["decode.typical_p=nan"]),
        (["decode.repetition_penalty=0"], ["decode.repetition_penalty=0", "0.001"]),
        (["decode.repetition_penalty=inf"], ["decode.repetition_penalty=inf", "1000"]),
        (["decode.no_repeat_ngram_size=0"], ["decode.no_repeat_ngram_size=0", "at least 1"]),
        (["decode.min_new_tokens=-1"], ["decode.min_new_tokens=-1", "at least 0"]),
        (["decode.min_new_tokens=51"], ["decode.min_new_tokens=51", "decode.max_new_tokens=50"]),
        (["decode.num_beams=0"], ["decode.num_beams=0", "at least 1"]),
        (["decode.num_beams=2", "decode.length_penalty=nan"], ["decode.length_penalty=nan", "100"]),
        (["decode.num_beams=2", "decode.length_penalty=1000"], ["decode.length_penalty=1000", "100"]),
        (["decode.max_new_tokens=99999999999999999999"], ["decode.max_new_tokens=9999", "at most 1000000"]),
        (["decode.num_samples=10000000"], ["decode.num_samples=10000000", "at most 1000000"]),
        (["decode.length_penalty=2"], ["decode.length_penalty=2", "add decode.num_beams"]),
        (["decode.num_beams=2", "decode=greedy"], ["decode.num_beams=2", "decode.greedy=true"]),
        (["decode.num_beams=2", "decode.temperature=0.5"], ["decode.num_beams=2", "decode.temperature=0.5"]),
        (["decode.num_beams=2", "decode.top_k=5"], ["decode.num_beams=2", "decode.top_k=5"]),
        (["decode.num_beams=2", "decode.top_p=0.5"], ["decode.num_beams=2", "decode.top_p=0.5"]),
        (["decode.num_beams=2", "decode.min_p=0.5"], ["decode.num_beams=2", "decode.min_p=0.5"]),
        (["decode.num_beams=2", "decode.typical_p=0.5"], ["decode.num_beams=2", "decode.typical_p=0.5"]),
        (["decode.num_beams=2", "decode.num_samples=3"], ["decode.num_samples=3", "decode.num_beams=2"]),
        (["decode.num_beams=2", "decode.lookup=true"], ["not combined with decode.lookup"]),
        (["decode.num_beams=2", "decode.logprobs=1"], ["not combined with decode.logprobs"]),
        (["decode.num_beams=2", "decode.on_overflow=crop"], ["not combined with decode.on_overflow"]),
        (["decode.num_beams=2", "decode.stop=a"], ["not combined with decode.stop"]),
        (["decode.on_overflow=crob"], ["decode.on_overflow=crob", "did you mean 'crop'?"]),
        (["decode.logprobs=0"], ["decode.logprobs=0", "at least 1"]),
        (["decode.stop=5"], ["decode.stop=5", "'decode.stop=\"5\"'"]),
        (["decode.stop=[a,null]"], ["decode.stop", "entry 2 is null, not text"]),
        (["decode.stop=[1,2]"], ["decode.stop", "entry 1 is 1, not text"]),
        (['decode.stop=["a",""]'], ["decode.stop", "empty"]),
        (['decode.stop="\udcff"'], ["decode.stop", "not UTF-8"]),
        (["batch_size=many"], ["batch_size=many", "auto"]),
        (["batch_size=true"], ["batch_size=True", "auto"]),
        (["batch_size=1.5"], ["batch_size=1.5", "auto"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_decoding(refused: Refused, args: list[str], words: list[str]) -> None:
    assert_in(refused("task=generate", *args), *words)


@pytest.mark.parametrize(
    "setting",
    [
        *("temperature=0.5", "min_p=0.1", "repetition_penalty=1.1", "min_new_tokens=1", "stop=a", "num_beams=2"),
        *("on_overflow=crop", "lookup=true", "logprobs=1"),
    ],
)
def test_validate_takes_no_decoding_of_its_own(refused: Refused, setting: str) -> None:
    key = setting.partition("=")[0]
    assert_in(refused(f"decode.{setting}"), f"decode.{key}", "task=validate does not use it", "task=generate")


# Prompts


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (['prompt=""'], ["prompt", "empty"]),
        (['prompt=["a",""]'], ["prompt", "entry 2", "empty"]),
        (["prompt=[]"], ["prompt", "no prompt"]),
        (["prompt=null"], ["prompt", "no prompt"]),
        ([f'prompt="{"!?" * 300}"'], ["prompt", "600 tokens", "context of 256"]),
        (['prompt="!?"', "decode.max_new_tokens=255"], ["2 tokens", "context of 256", "decode.max_new_tokens=254"]),
        ([f'prompt=["a","{"!?" * 300}"]'], ["prompt 'cd45929e' ('!?!?!?", "600 tokens"]),
    ],
    ids=["empty", "empty in a list", "empty list", "null", "too long", "too long with new tokens", "second too long"],
)
def test_bad_prompt(refused: Refused, args: list[str], words: list[str]) -> None:
    assert_in(refused("task=generate", *args), *words)


def test_longest_prompt_that_fits(gpt2x: Cli) -> None:
    assert gpt2x("task=generate", 'prompt="!?"', "decode.max_new_tokens=254").code == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.txt", b"good\n\xff\xfe bad\n", ["not UTF-8", "byte 5"]),
        ("p.jsonl", b'{"prompt": "a"}\n{"id": "\\ud800", "prompt": "b"}', ["entry 2", "not UTF-8"]),
        ("p.txt", b"", ["no prompt"]),
        ("p.txt", b"\n \n", ["no prompt"]),
        ("p.csv", b"text,id\na,1\n", ["column", "prompt", "text", "id"]),
        ("p.csv", b"prompt,id\na,1\nb,1\n", ["two prompts", "'1'"]),
        ("p.csv", b"prompt,id\na,1\n,2\n", ["entry 2"]),
        ("p.csv", b'prompt\n"a\n', ["CSV"]),
        ("p.csv", b"", ["column", "prompt"]),
        ("p.csv", b"prompt\n", ["no prompt"]),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": \n', ["line 2", "JSON"]),
        ("p.jsonl", b'["a"]\n', ["line 1", "object"]),
        ("p.jsonl", b'{"text": "a"}\n', ["entry 1", "prompt"]),
        ("p.jsonl", b'{"prompt": 5}\n', ["entry 1", "prompt"]),
        ("p.jsonl", b'{"prompt": "half an emoji: \\ud83d"}\n', ["entry 1"]),
        ("p.jsonl", b'{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}\n', ["two prompts", "'x'"]),
        ("p.jsonl", b"", ["no prompt"]),
        ("p.yaml", b"- a\n", [".txt, .jsonl or .csv"]),
    ],
)
def test_bad_prompts_file(refused: Refused, tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert_in(refused("task=generate", f"prompts_file={file}"), str(file), *words)


def test_prompts_file_that_is_missing(refused: Refused) -> None:
    assert_in(refused("task=generate", "prompts_file=none.txt"), "prompts_file=none.txt", "No such file")


# Training data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"fine\n\xff", ["not UTF-8", "byte 5"]),
        (b"hi", ["training split has 1 tokens"]),
        (b"", ["training split has 0 tokens"]),
    ],
    ids=["latin-1", "short", "empty"],
)
def test_bad_training_data(refused: Refused, tmp_path: Path, content: bytes, words: list[str]) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    assert_in(refused("task=train", f"task.data={file}", f"weights.path={NANO}"), "task.data", *words)


def test_training_data_too_plain_for_a_vocabulary(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("ha " * 1000)
    assert_in(refused("task=train", f"task.data={file}", "model=nano"), "task.data", "model.vocab_size=1024")


def test_training_data_that_is_missing(refused: Refused) -> None:
    assert_in(refused("task=train", "task.data=none.txt", "model=nano"), "task.data=none.txt", "No such file")
    assert_in(refused("task=train", "model=nano"), "task.data=FILE")


# The run folder


def test_output_folder_that_cannot_be_made(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    line = refused("task=generate", f"hydra.run.dir={file}/sub")
    assert_in(line, str(file), "hydra.run.dir=DIR")
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["generations.csv", "timing.csv", "manifest.json"])
def test_full_disk_leaves_nothing(gpt2x: Cli, launch: Path, full_disk: FullDisk, name: str) -> None:
    folder = launch / "out"
    full_disk(folder / name)
    line = gpt2x("task=generate", "decode.max_new_tokens=1", f"hydra.run.dir={folder}").error()
    assert_in(line, name, "No space left on device")
    assert [file for file in launch.rglob("*") if not file.is_dir()] == []


@pytest.mark.parametrize("folder", ["sub", "."])
def test_a_failure_keeps_what_was_in_the_folder_before(gpt2x: Cli, launch: Path, folder: str) -> None:
    (launch / "sub").mkdir()
    files = [launch / "sub" / "thesis.txt", launch / "thesis.txt"]
    for file in files:
        file.write_text("mine")
    assert_in(gpt2x("task=generate", 'prompt=""', f"hydra.run.dir={folder}").error(), "empty")
    assert sorted(file for file in launch.rglob("*") if file.is_file()) == files


def test_a_sweep_that_cannot_start_leaves_nothing(refused: Refused) -> None:
    assert_in(refused("-m", "task=generate", "decode.top_k=5,abc"), "decode.top_k", "'abc'")


@pytest.mark.parametrize("error", [AssertionError(), InstantiationException()])
def test_an_error_of_hydra_without_text(refused: Refused, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(**_: Any) -> None:
        raise error from AssertionError()

    monkeypatch.setattr(hydra_app, "_run_hydra", fail)
    assert refused("task=generate").endswith(": AssertionError")


# What is not the user's


def test_a_bug_keeps_its_traceback(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(config: Any, task: Any, run_dir: Path) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("gpt2x.tasks.generate.run", bug)
    result = gpt2x("task=generate")
    assert result.code == 70
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1] == "RuntimeError: a bug"
    job = json.loads((run_dir(launch, "generate") / "job.json").read_text())
    assert (job["status"], job["error"]) == ("failed", "RuntimeError: a bug")


def test_an_interrupt_exits_with_130(gpt2x: Cli, launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(config: Any, task: Any, run_dir: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gpt2x.tasks.generate.run", interrupt)
    assert gpt2x("task=generate").code == 130
    assert list(launch.iterdir()) == []
