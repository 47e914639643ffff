"""The compiled pass: the function of the model's operators, for every dtype, shape, batch and number of threads."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest
import torch
from torch import Tensor

from gpt2x.checkpoints.load import _disturb, model_of
from gpt2x.config.decode import DecodeConfig
from gpt2x.decoding import engine
from gpt2x.decoding.generate import Request, generate
from gpt2x.decoding.sampler import Sampler
from gpt2x.model import compiled, kernels
from gpt2x.model.compiled import CompiledPass
from gpt2x.model.compiled.forward import forward_for
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.model.kernels.int8 import Int8Linear

SMALL = GPT2Config(vocab_size=101, n_positions=64, n_embd=64, n_layer=2, n_head=4)  # 101: not whole blocks of the head
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
DTYPES = ["float32", "bfloat16", "float16", "int8"]


def made(config: GPT2Config, dtype: str, inputs_first: bool = True) -> GPT2:
    """A model with large random weights, so that attention and GELU do not stay close to linear."""
    model = GPT2(config)
    model.init_weights(0)
    _disturb(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    state = {}
    for name, tensor in model.state_dict().items():
        is_matrix = inputs_first and ".h." in name and tensor.ndim == 2
        state[name] = tensor.t().contiguous().t() if is_matrix else tensor
        state[name] = state[name].to(torch.float32 if dtype == "int8" else getattr(torch, dtype))
    model = model_of(state, config)
    if dtype == "int8":
        kernels.quantize(model)
    return model


def in_float64(model: GPT2) -> GPT2:
    """The function that the step computes: the weights as they are stored, and exact activations."""
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    exact = GPT2(model.config)
    exact.load_state_dict(state, assign=True)
    for name, module in model.named_modules():
        if isinstance(module, Int8Linear):
            numbers, scales = module.rounded()
            exact.get_submodule(name).weight = torch.nn.Parameter(numbers.double() * scales.double()[:, None])
    return exact.eval()


@torch.inference_mode()
def decoded(model: GPT2, tokens: list[int], steps: bool) -> Tensor:
    """The logits [T, V] after each token, which follows PROMPT; by the compiled step or by the model itself."""
    cache = model.new_cache(1, 40)
    engine.prefill(model, [PROMPT], cache)
    if steps:
        engine._steps[cache] = CompiledPass(model, cache)
    return torch.cat([engine.decode_one_token(model, [token], cache) for token in tokens])


def error(logits: Tensor, exact: Tensor) -> float:
    return float((logits.double() - exact).norm() / exact.norm())


TOKENS = list(range(0, 100, 7))


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_are_those_of_the_stored_weights(dtype: str) -> None:
    """Closer to them than the model's operators, which round activations to the dtype as well."""
    model = made(SMALL, dtype)
    exact = decoded(in_float64(model), TOKENS, steps=False)
    found, plain = decoded(model, TOKENS, steps=True), decoded(model, TOKENS, steps=False)
    # The prompt's keys and values are those of the plain model in both.
    assert error(found, exact) < {"float32": 2e-6}.get(dtype, 0.05)
    assert error(found, exact) <= error(plain, exact) * (2 if dtype == "float32" else 1)
    assert error(plain, exact) > 0


@pytest.mark.parametrize(
    ("n_embd", "n_head", "inputs_first"),
    [(64, 4, False), (200, 5, True), (8, 1, True)],
    ids=["weights by outputs", "fewer slices", "one head"],
)
def test_other_shapes(n_embd: int, n_head: int, inputs_first: bool) -> None:
    config = GPT2Config(vocab_size=103, n_positions=64, n_embd=n_embd, n_layer=2, n_head=n_head)
    model = made(config, "float32", inputs_first)
    exact = decoded(in_float64(model), TOKENS, steps=False)
    assert error(decoded(model, TOKENS, steps=True), exact) < 2e-6


@pytest.mark.parametrize(
    ("n_embd", "n_head", "dtype"),
    [*((64, 4, dtype) for dtype in DTYPES), (200, 5, "float32"), (600, 3, "bfloat16"), (8, 1, "float32")],
)
def test_a_text_does_not_depend_on_the_others(n_embd: int, n_head: int, dtype: str) -> None:
    """To the last bit: in prefill, in steps and in verification, with any number of rows."""
    config = GPT2Config(vocab_size=103, n_positions=64, n_embd=n_embd, n_layer=2, n_head=n_head)
    model = made(config, dtype)
    prompts = [[(7 * row + place) % 103 for place in range(1 + row % 9)] for row in range(23)]

    def logits(prompts: list[list[int]]) -> Tensor:
        cache = model.new_cache(len(prompts), 40)
        engine.prepare(model, cache, 1, deterministic=True)
        first = engine.prefill(model, prompts, cache)[:, None]
        second = engine.decode_one_token(model, [len(prompt) for prompt in prompts], cache)[:, None]
        lengths = cache.lengths
        third = engine.verify(model, [[1, 2, 3][: 1 + len(prompt) % 3] for prompt in prompts], cache)
        assert cache.lengths == tuple(length + third.shape[1] for length in lengths)
        return torch.cat([first, second, third], 1)

    together = logits(prompts)
    for start in (0, 1, 3, 8, 15):
        for count in (1, 2, 7):
            alone = logits(prompts[start : start + count])
            assert torch.equal(alone, together[start : start + count, : alone.shape[1]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads_gives_the_same_bytes(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_FEW_PRODUCTS", 0)
    model, threads = made(SMALL, dtype), torch.get_num_threads()
    try:
        found = []
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(decoded(model, TOKENS, steps=True))
            cache = model.new_cache(2, 40)
            engine.prepare(model, cache, 1, deterministic=True)
            found[-1] = torch.cat([found[-1], engine.prefill(model, [PROMPT, TOKENS], cache)])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_the_number_of_threads_of_torch_is_left_alone() -> None:
    """It is the user's, and that of a worker which shares the cores with others."""
    code = "import torch, gpt2x.model.compiled; print(torch.get_num_threads())"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "1\n"


def test_each_function_has_machine_code_of_its_own() -> None:
    """numba may give one process the code of another's function, if both have one name and are compiled together."""
    names = set()
    for dtype in DTYPES:
        model = made(SMALL, dtype)
        compiled_pass = CompiledPass(model, model.new_cache(1, 8))
        functions = compiled_pass.in_one_thread, compiled_pass.in_threads
        assert [function.targetoptions["parallel"] for function in functions] == [False, True]
        names |= {function.py_func.__qualname__ for function in functions}
    assert len(names) == 2 * len(DTYPES)


def test_a_compilation_is_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not where the machine code is loaded, or is in use already."""

    def announced() -> str:
        caplog.clear()
        compiled._announce(forward_for(("kinds of a test",), False))
        return caplog.text

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
    forward_for.cache_clear()
    assert "once per installation" in announced()
    (folder,) = tmp_path.iterdir()
    (folder / f"forward.{forward_for(('kinds of a test',), False).py_func.__name__}-3.py.nbi").touch()
    assert announced() == ""

    forward_for.cache_clear()

    def cannot_be_kept(*args: Any) -> None:
        raise RuntimeError("cannot cache function 'forward'")

    monkeypatch.setattr(numba.core.dispatcher, "FunctionCache", cannot_be_kept)
    assert "for this process only" in announced()
    forward_for.cache_clear()


def test_numbers_that_are_not_finite_stay_so() -> None:
    model = made(SMALL, "float32")
    model.transformer.h[1].mlp.c_fc.weight[3, 2] = float("nan")
    assert decoded(model, [1], steps=True).isnan().all()
    model.transformer.h[1].mlp.c_fc.weight[3, 2] = float("inf")
    assert decoded(model, [1], steps=True).isnan().any()


@pytest.mark.parametrize("settings", [{"greedy": True}, {"top_p": 0.9}], ids=str)
def test_texts_are_the_same(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are longer than the context, whose cache is filled anew."""
    model = made(SMALL, "float32")
    sampler = Sampler(DecodeConfig(max_new_tokens=70, **settings), 0, eos_id=None)
    requests = [Request(PROMPT, "a"), Request(PROMPT[:3], "b", 1)]

    def texts() -> list[list[int]]:
        return [completion.ids for _, completion in generate(model, requests, sampler, batch_size=1)]

    plain = texts()
    used = []
    monkeypatch.setattr(engine, "_COMPILED_FROM", 1)
    monkeypatch.setattr(CompiledPass, "__call__", counted(CompiledPass.__call__, used))
    assert texts() == plain
    assert len(used) > 70


def counted(function: Any, calls: list[int]) -> Any:
    def call(*args: Any) -> Any:
        calls.append(1)
        return function(*args)

    return call


ENOUGH = 10**6  # steps for which loading the compiled code pays, with the smallest model here


def is_compiled(model: GPT2, rows: int, steps: int) -> bool:
    cache = model.new_cache(rows, 8)
    engine.prepare(model, cache, steps)
    return cache in engine._steps


def test_the_choice_by_work_and_shape() -> None:
    model = made(SMALL, "float32")
    enough = engine._COMPILED_FROM // sum(parameter.numel() for parameter in model.parameters()) + 1
    assert is_compiled(model, 1, enough)
    assert not is_compiled(model, 1, enough // 2)
    assert not is_compiled(in_float64(model), 1, ENOUGH)
    narrow = made(GPT2Config(vocab_size=101, n_positions=64, n_embd=12, n_layer=1, n_head=3), "float32")
    assert not is_compiled(narrow, 1, ENOUGH)


@pytest.mark.parametrize(
    ("dtype", "cpu", "most"),
    [
        ("float32", {}, 32),
        ("bfloat16", {"has_onednn": True}, 16),
        ("bfloat16", {"has_onednn": False}, 512),
        ("float16", {"has_float16": True}, 16),
        ("float16", {"has_float16": False}, 512),
        ("int8", {}, 16),
    ],
)
def test_the_choice_by_tokens(dtype: str, cpu: dict[str, bool], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More texts or tokens than the compiled pass is fast for are left to torch's operators."""
    for name, answer in cpu.items():
        monkeypatch.setattr(engine, name, lambda *args, answer=answer: answer)
    model, used = made(SMALL, dtype), list[int]()
    assert is_compiled(model, most, ENOUGH)
    assert not is_compiled(model, most + 1, ENOUGH)

    monkeypatch.setattr(CompiledPass, "prefill", counted(CompiledPass.prefill, used))
    monkeypatch.setattr(CompiledPass, "verify", counted(CompiledPass.verify, used))
    rows = most // 16
    cache = model.new_cache(rows, 60)
    engine.prepare(model, cache, ENOUGH)
    texts = [[place] * 16 for place in range(rows)]
    engine.prefill(model, texts, cache)
    assert len(used) == 1
    engine.verify(model, texts, cache)
    assert len(used) == 2
    one_more = [*texts[:-1], [rows] * 17]
    engine.verify(model, one_more, cache)
    assert len(used) == 2
    if most < engine._PREFILL_TOKENS:  # else they are prefilled in two groups
        cache = model.new_cache(rows, 40)
        engine.prepare(model, cache, ENOUGH)
        engine.prefill(model, one_more, cache)
        assert len(used) == 2


def test_a_short_job_does_not_load_the_compiler(tmp_path: Path) -> None:
    code = (
        "import sys; from gpt2x.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end\n"
        "assert 'torch' in sys.modules; assert 'numba' not in sys.modules"
    )
    command = [sys.executable, "-c", code, "task=generate", "decode.max_new_tokens=2", "prompt=a"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
