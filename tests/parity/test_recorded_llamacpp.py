"""llama.cpp as a subject: the log-probabilities that its server returns, recorded and compared with the reference."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.conftest import Cli, assert_in, read_csv

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
llamacpp = pytest.importorskip("gpt2x.benchmark.engines.llamacpp")

IDS = [5, 72, 9, 100, 101, 33, 250]


@pytest.fixture
def logprobs(noisy: Path, tmp_path: Path) -> np.ndarray:
    """[T, V] in float32. The server tells the probabilities of the next token only: it is asked once per position."""
    folder = shutil.copytree(noisy, tmp_path / "checkpoint")
    llamacpp.convert(folder, "float32")
    server = llamacpp.Engine(folder, "float32", 1).server
    found = np.full((len(IDS), 300), np.nan, np.float32)
    for i in range(len(IDS)):
        answer = server.handle_completions({"prompt": [IDS[: i + 1]], "max_tokens": 1, "logprobs": 300})
        for each in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            found[i, each["id"]] = each["logprob"]
    return found


def test_llama_cpp_is_the_same_function_as_far_as_its_gelu_in_float16_allows(
    gpt2x: Cli, launch: Path, noisy: Path, logprobs: np.ndarray
) -> None:
    """Its CPU code looks GELU up in a table of float16 numbers, also in a model of float32."""
    codes = {}
    for dtype in ("float16", "float32"):
        save_file({"logprobs": logprobs}, launch / f"{dtype}.safetensors", {"ids": json.dumps(IDS), "dtype": dtype})
        target = ("subject=recorded", f"subject.target={dtype}.safetensors", f"dtype={dtype}")
        codes[dtype] = gpt2x(*target, f"weights.path={noisy}", f"hydra.run.dir={dtype}").code
    assert codes == {"float16": 0, "float32": 1}
    (summary,) = read_csv(launch / "float32" / "summary.csv")
    assert summary["first_divergence"] == "logits: lm_head"
    assert_in(summary["probable_cause"], "unknown: ")
    (ratio,) = [row for row in read_csv(launch / "float16" / "parity.csv") if row["metric"] == "error_ratio"]
    assert float(ratio["value"]) < 1  # its activations alone are in float16; those of the reference are all
