"""task=generate at its limits: settings that forbid all tokens, numbers that overflow, and very long prompts."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt2x.model.kernels.int8 import Int8Linear
from gpt2x.tokenizer import load_tokenizer
from tests.conftest import NANO, Cli, Refused, assert_in, read_csv, tiny_hf


@pytest.fixture(scope="module")
def long_context(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 tokens, and a context in which all of them can appear."""
    folder = tmp_path_factory.mktemp("long")
    tiny_hf(n_positions=700, eos_token_id=0, bos_token_id=0).save_pretrained(folder)
    load_tokenizer(tiny_dir).save(folder)
    return folder


FORBID = ("decode.no_repeat_ngram_size=1", "decode.min_new_tokens=400", "decode.max_new_tokens=400")


@pytest.mark.parametrize("how", ["decode.greedy=true", "decode.top_k=5", "decode.lookup=true", "decode.num_beams=2"])
def test_settings_that_forbid_all_tokens_are_named(gpt2x: Cli, launch: Path, long_context: Path, how: str) -> None:
    (launch / "p.txt").write_text("a\n")
    line = gpt2x("task=generate", f"weights.path={long_context}", "prompts_file=p.txt", *FORBID, how).error()
    assert_in(line, "decode.no_repeat_ngram_size=1 and decode.min_new_tokens=400 forbid all tokens")
    if "beams" not in how:
        assert_in(line, "after 298 new tokens", "use decode.max_new_tokens=298 or fewer")
        fewer = (*FORBID, "decode.min_new_tokens=298", "decode.max_new_tokens=298")
        assert gpt2x("task=generate", f"weights.path={long_context}", "prompts_file=p.txt", *fewer, how).code == 0
    assert not (launch / "runs").exists() or len(list(launch.glob("runs/*/*"))) == 1


def test_rows_that_are_done_are_kept_where_tokens_run_out(gpt2x: Cli, launch: Path, long_context: Path) -> None:
    """The second prompt has so many different tokens that few are left; the first can be continued."""
    many = "".join(map(chr, range(35, 127)))
    args = ("task=generate", f"weights.path={long_context}", "prompts_file=p.csv", "batch_size=1", "hydra.run.dir=out")
    (launch / "p.csv").write_text(f'prompt\n"a"\n"{many}"\n', newline="")
    lengths = ("decode.min_new_tokens=250", "decode.max_new_tokens=250")
    line = gpt2x(*args, "decode=greedy", "decode.no_repeat_ngram_size=1", *lengths).error()
    assert_in(line, "forbid all tokens")
    (row,) = read_csv(launch / "out" / "generations.csv")
    assert (row["prompt"], row["n_new_tokens"]) == ("a", "250")


@pytest.fixture
def overflow(monkeypatch: pytest.MonkeyPatch, tiny_dir: Path) -> Path:
    """The head's product overflows in int8."""

    def forward(self: Int8Linear, x: torch.Tensor, original: Any = Int8Linear.forward) -> torch.Tensor:
        y = original(self, x)
        return y * torch.inf if x.dtype == torch.float32 and self.out_features == 300 else y

    monkeypatch.setattr(Int8Linear, "forward", forward)
    return tiny_dir


@pytest.mark.parametrize("how", ["decode=greedy", "decode=sample", "decode.num_beams=2"])
def test_logits_that_are_not_finite_are_refused(refused: Refused, overflow: Path, how: str) -> None:
    args = ("task=generate", f"weights.path={overflow}", "prompt=be", "decode.max_new_tokens=4", how)
    assert_in(refused(*args, "dtype=int8"), "dtype=int8", "not finite", "overflow", "dtype=float32")


@pytest.mark.parametrize(("dtype", "factor"), [("float16", 6e4), ("float32", 3e38)])
def test_weights_that_overflow_are_refused(
    gpt2x: Cli, tiny_dir: Path, tmp_path: Path, dtype: str, factor: float
) -> None:
    for file in tiny_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tiny_dir / "model.safetensors")
    tensors["transformer.ln_f.weight"] = torch.full_like(tensors["transformer.ln_f.weight"], factor)
    tensors["transformer.wte.weight"] *= 100
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    args = ("task=generate", f"weights.path={tmp_path}", "prompt=be", "decode.max_new_tokens=4")
    result = gpt2x(*args, f"dtype={dtype}")
    assert result.code == 2
    reason = f"ln_f.weight holds a value of {factor:.2g}"
    assert_in(result.err.splitlines()[-1], f"dtype={dtype}", "not finite", reason, "damaged")


def test_int8_that_overflows_is_called_so_by_validate(gpt2x: Cli, launch: Path, overflow: Path) -> None:
    args = (f"weights.path={overflow}", "dtype=int8", "task.stages=[config,weights,logits,generation]", "prompt=be")
    assert gpt2x(*args, "task.gen_prompt=be", "decode.max_new_tokens=2", "hydra.run.dir=out").code == 1
    (row,) = read_csv(launch / "out" / "summary.csv")
    assert row["first_divergence"] == "logits: lm_head"
    assert row["probable_cause"] == "the same function in float64, but in this dtype it overflows"


LONG_TEXTS = {"words": "the cat sat. on a mat " * 200_000, "one word": "a" * 4_000_000}


@pytest.mark.parametrize("name", LONG_TEXTS)
@pytest.mark.parametrize("args", [("task=generate", "prompts_file=p.txt"), ("prompt_file=p.txt",)])
def test_a_very_long_prompt_is_refused_with_little_memory(launch: Path, name: str, args: tuple[str, ...]) -> None:
    """A process whose address space is limited to 300 MB more than a short prompt needs; encoding takes 900 MB."""
    (launch / "p.txt").write_text(LONG_TEXTS[name])
    code = (
        "import resource, sys, torch, tokenizers; from gpt2x.cli.main import main;"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (now + 300_000_000,) * 2);"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=launch, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert_in(line, "at least", "tokens", "context of 256")


def test_the_lower_bound_is_one(launch: Path) -> None:
    tokenizer = load_tokenizer(NANO)
    for text in ("a b c", "the the the", "é家👩‍👩‍👧", "<|endoftext|>" * 5, " " * 1000, "\n"):
        assert 0 < tokenizer.fewest_tokens(text) <= len(tokenizer.encode(text))


def test_a_very_long_prompt_is_continued_from_its_end(gpt2x: Cli, launch: Path) -> None:
    args = ("task=generate", "decode=greedy", "decode.on_overflow=crop", "decode.max_new_tokens=8")
    end = "And now, my lord, what news from the north? " * 100
    (launch / "long").write_text("once upon a time " * 70_000 + end)
    (launch / "short").write_text(end)
    for name in ("long", "short"):
        assert gpt2x(*args, f"prompt_file={name}", f"hydra.run.dir={name}-out").code == 0
    (long,), (short,) = (read_csv(launch / f"{name}-out" / "generations.csv") for name in ("long", "short"))
    assert long["completion"] == short["completion"]
    assert long["prompt"] == (launch / "long").read_text()
    assert int(long["n_prompt_tokens"]) < len(long["prompt"])
