"""The decode step with fixed shapes, which becomes a CUDA graph on a GPU; here its operators run one by one."""

import gc
from pathlib import Path

import pytest
import torch

from gpt2x.config.decode import DecodeConfig
from gpt2x.decoding import engine, graph
from gpt2x.decoding.search.beams import beam_search
from gpt2x.model.gpt2 import GPT2
from tests.decoding.test_batches import RAGGED, REPEATED, common_token, texts
from tests.decoding.test_generation import complete, load, pair


@pytest.fixture
def model(tmp_path: Path) -> GPT2:
    pair(tmp_path)
    return load(tmp_path, torch.float64).model


@torch.inference_mode()
def test_a_step_with_fixed_shapes_gives_the_logits_of_a_plain_one(model: GPT2) -> None:
    plain, fixed = model.new_cache(6, 20), model.new_cache(6, 20)  # more rows and more capacity than are in use
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [1, 2, 3]]
    for cache in (plain, fixed):
        engine.prefill(model, prompts, cache)
    step = graph.GraphStep(model, fixed)
    for t in range(12):
        if t == 4:  # a text ends, and the last one takes its place
            plain.remove(1)
            fixed.remove(1)
        if t == 8:
            for cache in (plain, fixed):
                engine.prefill(model, [[9, 8, 7, 6, 5]], cache)
        tokens = [10 + t + row for row in range(len(plain.lengths))]
        wanted = engine.verify(model, [[token] for token in tokens], plain)[:, 0]
        torch.testing.assert_close(step(tokens, fixed.lengths), wanted, rtol=1e-12, atol=1e-12)
        fixed.advance(1)
        assert fixed.lengths == plain.lengths


@pytest.mark.parametrize("settings", [{"greedy": True}, {"top_p": 0.9}], ids=str)
@pytest.mark.parametrize("prompts", [RAGGED, REPEATED], ids=["ragged", "repeated"])
def test_texts_are_the_same(
    model: GPT2, monkeypatch: pytest.MonkeyPatch, prompts: list[list[int]], settings: dict[str, object]
) -> None:
    decode = DecodeConfig(max_new_tokens=8, **settings)
    plain = complete(model, prompts, decode)
    eos_id = common_token(plain)
    wanted = texts(complete(model, prompts, decode, eos_id=eos_id))
    steps = 0

    class Counted(graph.GraphStep):
        def __call__(self, tokens: list[int], lengths: tuple[int, ...]) -> torch.Tensor:
            nonlocal steps
            steps += 1
            return super().__call__(tokens, lengths)

    monkeypatch.setattr(engine, "has_graphs", lambda cache: True)
    monkeypatch.setattr(engine, "GraphStep", Counted)
    assert texts(complete(model, prompts, decode, eos_id=eos_id)) == wanted
    assert steps >= 8


def test_beams_are_the_same(model: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    def search() -> list[list[int]]:
        found = beam_search(model, RAGGED[:5], 3, 3, 1.0, 6, None, lambda logprobs, texts, n_prompts: logprobs)
        return [completion.ids for beams in found for completion in beams]

    wanted = search()
    monkeypatch.setattr(engine, "has_graphs", lambda cache: True)
    assert search() == wanted


def test_a_step_lives_as_long_as_its_cache(model: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "has_graphs", lambda cache: True)
    before = len(engine._steps)
    cache = model.new_cache(1, 4)
    engine.prefill(model, [[1, 2]], cache)
    engine.decode_one_token(model, [1], cache)
    step = engine._steps[cache]
    engine.decode_one_token(model, [1], cache)
    assert engine._steps[cache] is step
    assert len(engine._steps) == before + 1
    del cache
    gc.collect()
    assert len(engine._steps) == before
