"""task=generate: what is in generations.csv and on the console, whatever the prompts."""

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import NANO, Cli, read_csv, run_dir

COLUMNS = [
    *("prompt_id", "sample", "prompt", "completion", "n_prompt_tokens", "n_new_tokens", "finish_reason", "logprob"),
    *("model", "weights", "device", "dtype", "greedy", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("repetition_penalty", "no_repeat_ngram_size", "max_new_tokens", "min_new_tokens", "stop", "num_beams"),
    *("length_penalty", "on_overflow", "seed"),
]
HOSTILE = [
    *("a=b, c=d", 'say "hi"', '"', "it's", "# no comment", "costs $5 or $x", "${x}", "a ${b.c} d", "\\${x}"),
    *("\\\\${x}", "back\\slash", "trailing\\", "two\\\\", '\\"', "line\nbreak\n", "cr\r\nlf", "\u2028", "tab\there"),
    *("emoji 👩‍👩‍👧 é", "  spaces  ", "[a]", "{a: 1}", "(", "null", "007", "%s {} ~a @b;|*"),
]


def hydra_quote(text: str) -> str:
    """The text in double quotes, with a backslash before `"`, and doubled backslashes before that and at the end.

    https://hydra.cc/docs/advanced/override_grammar/basic/#quoted-values
    """
    return '"' + re.sub(r'(\\*)("|\Z)', lambda m: 2 * m[1] + m[2].replace('"', '\\"'), text) + '"'


Generate = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def generate(gpt2x: Cli, launch: Path) -> Generate:
    """Rows of generations.csv of `gpt2x task=generate ARGS`, 8 new tokens unless told."""

    def run(*args: str) -> list[dict[str, Any]]:
        shutil.rmtree(launch / "out", ignore_errors=True)
        result = gpt2x("task=generate", "hydra.run.dir=out", "decode.max_new_tokens=8", *args)
        assert (result.code, result.warnings) == (0, "")
        return read_csv(launch / "out" / "generations.csv")

    return run


def test_greedy_is_what_transformers_generates(generate: Generate) -> None:
    from transformers import AutoTokenizer, GPT2LMHeadModel

    (row,) = generate("decode=greedy", 'prompt="To be, or not to be"', "decode.max_new_tokens=20")
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    model = GPT2LMHeadModel.from_pretrained(NANO, dtype=torch.float32)
    inputs = tokenizer("To be, or not to be", return_tensors="pt")
    n = inputs["input_ids"].shape[1]
    ids = model.generate(**inputs, max_new_tokens=20, do_sample=False, pad_token_id=0)[0]
    logprobs = model(ids[None]).logits[0, n - 1 : -1].log_softmax(-1)
    assert list(row) == COLUMNS
    assert float(row.pop("logprob")) == pytest.approx(
        logprobs.gather(-1, ids[n:, None]).sum().item(), rel=1e-4, abs=1e-4
    )
    assert row == {
        "prompt_id": hashlib.sha256(b"To be, or not to be").hexdigest()[:8],
        "sample": "0",
        "prompt": "To be, or not to be",
        "completion": tokenizer.decode(ids[n:], clean_up_tokenization_spaces=False),
        "n_prompt_tokens": str(n),
        "n_new_tokens": "20",
        "finish_reason": "length",
        "model": "nano",
        "weights": str(NANO),
        "device": "cpu",
        "dtype": "float32",
        "greedy": "True",
        "temperature": "1.0",
        "top_k": "",
        "top_p": "",
        "min_p": "",
        "typical_p": "",
        "repetition_penalty": "1.0",
        "no_repeat_ngram_size": "",
        "max_new_tokens": "20",
        "min_new_tokens": "0",
        "stop": "",
        "num_beams": "1",
        "length_penalty": "1.0",
        "on_overflow": "refuse",
        "seed": "0",
    }


def test_samples_differ_and_say_how_they_were_drawn(generate: Generate) -> None:
    args = ["decode.num_samples=4", "decode.top_k=50", "decode.top_p=0.95", "decode.temperature=1.25"]
    rows = generate("seed=3", *args)
    assert [row["sample"] for row in rows] == ["0", "1", "2", "3"]
    assert len({row["completion"] for row in rows}) == 4
    assert {(row["temperature"], row["top_k"], row["top_p"], row["greedy"], row["seed"]) for row in rows} == {
        ("1.25", "50", "0.95", "False", "3")
    }
    assert all(float(row["logprob"]) < 0 for row in rows)
    other = generate("seed=4", *args)
    assert {row["completion"] for row in rows}.isdisjoint(row["completion"] for row in other)


def test_top_k_1_is_greedy(generate: Generate) -> None:
    (sampled,), (greedy,) = generate("decode.top_k=1"), generate("decode=greedy")
    assert sampled["completion"] == greedy["completion"]


def test_end_of_text_ends_a_completion(generate: Generate, tiny_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ending"
    shutil.copytree(tiny_dir, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.ln_f.weight"].zero_()
    tensors["transformer.ln_f.bias"] = 1000 * tensors["transformer.wte.weight"][0]  # token 0 is <|endoftext|>
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (row,) = generate(f"weights.path={folder}", "prompt=line", "decode=greedy")
    assert (row["completion"], row["n_new_tokens"], row["finish_reason"]) == ("", "1", "eos")
    assert (row["model"], row["weights"]) == ("custom", str(folder))


def test_random_weights(generate: Generate) -> None:
    (first,), (second,) = (generate("model=nano", "weights=random", f"weights.seed={seed}") for seed in (1, 2))
    assert first["weights"] == "random (seed 1)"
    assert first["completion"] != second["completion"]


def test_list_of_prompts(generate: Generate) -> None:
    rows = generate('prompt=["one, two","three"]', "decode.num_samples=2")
    assert [(row["prompt"], row["sample"]) for row in rows] == [
        *(("one, two", "0"), ("one, two", "1"), ("three", "0"), ("three", "1"))
    ]
    assert len({row["prompt_id"] for row in rows}) == 2


PROMPTS = ["First, a comma", 'a "quote"', "naïve 😀"]


@pytest.mark.parametrize(
    ("name", "text", "ids"),
    [
        ("p.txt", "\n".join(PROMPTS) + "\n", ["0", "1", "2"]),
        ("p.txt", "\ufeff" + "\r\n\r\n".join(PROMPTS), ["0", "1", "2"]),
        ("p.jsonl", "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS), ["0", "1", "2"]),
        (
            "p.jsonl",
            "".join(json.dumps({"id": f"p{i}", "prompt": prompt}) + "\n" for i, prompt in enumerate(PROMPTS)),
            ["p0", "p1", "p2"],
        ),
        ("p.csv", pd.DataFrame({"prompt": PROMPTS}).to_csv(index=False), ["0", "1", "2"]),
        ("p.csv", pd.DataFrame({"id": [7, 8, 9], "prompt": PROMPTS}).to_csv(index=False), ["7", "8", "9"]),
    ],
    ids=["txt", "txt from Windows", "jsonl", "jsonl with ids", "csv", "csv with ids"],
)
def test_prompts_file(generate: Generate, tmp_path: Path, name: str, text: str, ids: list[str]) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8", newline="")
    rows = generate(f"prompts_file={file}", "decode.max_new_tokens=1")
    assert [(row["prompt_id"], row["prompt"]) for row in rows] == list(zip(ids, PROMPTS, strict=True))


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL], ids=["minimal", "all"])
def test_any_text_survives_a_csv_of_prompts(generate: Generate, tmp_path: Path, quoting: int) -> None:
    file = tmp_path / "p.csv"
    prompts = [*HOSTILE, "form\x0cfeed", "next\x85line", "paragraph\u2029separator"]
    pd.DataFrame({"prompt": prompts}).to_csv(file, index=False, quoting=quoting)
    assert [row["prompt"] for row in generate(f"prompts_file={file}", "decode.max_new_tokens=1")] == prompts


def test_any_text_survives_jsonl_prompts(generate: Generate, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    lines = (json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in HOSTILE)
    file.write_text("\n".join(lines), encoding="utf-8", newline="")
    assert [row["prompt"] for row in generate(f"prompts_file={file}", "decode.max_new_tokens=1")] == HOSTILE


@pytest.mark.parametrize("prompt", HOSTILE)
def test_any_prompt_arrives_unchanged(generate: Generate, prompt: str) -> None:
    (row,) = generate(f"prompt={hydra_quote(prompt)}", "decode.max_new_tokens=1")
    assert row["prompt"] == prompt


@pytest.mark.parametrize("prompt", ['"???"', '["???"]'])
def test_omegaconf_s_mark_for_a_missing_value_is_a_prompt_too(generate: Generate, prompt: str) -> None:
    (row,) = generate(f"prompt={prompt}", "decode.max_new_tokens=1")
    assert row["prompt"] == "???"


def test_any_prompts_in_a_list_arrive_unchanged(generate: Generate) -> None:
    prompts = ",".join(hydra_quote(prompt) for prompt in HOSTILE)
    assert [row["prompt"] for row in generate(f"prompt=[{prompts}]", "decode.max_new_tokens=1")] == HOSTILE


def test_any_prompts_in_a_sweep_arrive_unchanged(gpt2x: Cli, launch: Path) -> None:
    prompts = ",".join(hydra_quote(prompt) for prompt in HOSTILE)
    result = gpt2x("-m", "task=generate", f"prompt={prompts}", "decode.max_new_tokens=1", "hydra.sweep.dir=out")
    assert (result.code, result.err) == (0, "")
    assert [row["prompt"] for row in read_csv(launch / "out" / "generations.csv")] == HOSTILE


def test_same_config_same_bytes(gpt2x: Cli, launch: Path) -> None:
    args = ["task=generate", 'prompt=["a","a longer prompt"]', "decode.num_samples=3", "decode.top_p=0.9"]
    for folder in ("first", "second"):
        assert gpt2x(*args, f"hydra.run.dir={folder}").code == 0
    first, second = (launch / folder / "generations.csv" for folder in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_a_sample_does_not_depend_on_its_batch(generate: Generate) -> None:
    prompts = ["Now", "Speak, speak, and let me hear it all", "It's a", "O brave new world that has such people in it"]
    quoted = [hydra_quote(prompt) for prompt in prompts]
    args = ["decode.num_samples=3", "decode.max_new_tokens=24", "decode.top_p=0.95"]
    drawn = {}
    for name, batch_size, order in (("singly", 1, quoted), ("together", 8, quoted), ("reversed", 5, quoted[::-1])):
        rows = generate(f"prompt=[{','.join(order)}]", f"batch_size={batch_size}", *args)
        drawn[name] = {(row["prompt"], row["sample"]): row["completion"] for row in rows}
    drawn["alone"] = {
        (row["prompt"], row["sample"]): row["completion"]
        for prompt in quoted
        for row in generate(f"prompt={prompt}", *args)
    }
    assert len(set(drawn["singly"].values())) == 12
    assert drawn["together"] == drawn["singly"]
    assert drawn["reversed"] == drawn["singly"]
    assert drawn["alone"] == drawn["singly"]


def test_stdout_has_the_text_alone_and_stderr_the_folder(gpt2x: Cli, launch: Path) -> None:
    result = gpt2x("task=generate", 'prompt="[b]Well[/b], :smile: hello"', "decode=greedy", "decode.max_new_tokens=40")
    folder = run_dir(launch, "generate")
    (row,) = read_csv(folder / "generations.csv")
    assert result.out == row["prompt"] + row["completion"] + "\n"
    assert result.err == f"results in {folder.relative_to(launch)}\n"


def test_run_folder_says_where_the_run_came_from(gpt2x: Cli, launch: Path) -> None:
    assert gpt2x("task=generate", "seed=5", "prompt=hi", "decode.max_new_tokens=2").code == 0
    folder = run_dir(launch, "generate")
    assert sorted(file.name for file in folder.iterdir()) == [
        *("generations.csv", "job.json", "manifest.json", "timing.csv", "weights.csv")
    ]
    assert re.fullmatch(r"\d{8}-\d{6}-\d{6}", folder.name)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["config"]["seed"], manifest["config"]["prompt"]) == (5, "hi")
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["checkpoint"]["path"] == str(NANO)


def test_generate_imports_neither_transformers_nor_pandas(launch: Path) -> None:
    code = (
        "import sys; from gpt2x.cli.main import main; assert main() == 0;"
        "print(*sorted({'transformers', 'pandas', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "task=generate", "prompt=hi", "decode.max_new_tokens=1"],
        cwd=launch,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "tokenizers"
