"""Models whose forward pass needs more than ids, or asks for a dtype or a device by itself."""

from pathlib import Path

import pytest
import torch
from torch import nn

from gpt2x.parity.subject import SubjectError
from gpt2x.parity.subject.calling import Caller
from tests.conftest import REPO, assert_in
from tests.parity.conftest import Validate, summary_of

CODE = f"""
import sys
sys.path.append({str(REPO / "tests" / "subjects")!r})
import torch
from torch.nn import functional as F
from plain import GPT2, Attention, mistake


def model(masked):
    seen = []
    attention = mistake(Attention, mask=lambda m, scores: masked(scores, seen[-1]))

    class Masked(GPT2):
        def forward(self, ids, mask, start_pos, use_cache):
            assert start_pos == 0 and not use_cache
            seen.append(mask)
            return GPT2.forward(self, ids)

    def factory(a):
        made = attention(a)
        made.__class__ = Masked
        return made

    return factory


boolean = model(lambda scores, mask: scores.masked_fill(mask == 0, -torch.inf))
padding = model(
    lambda scores, mask: scores.masked_fill(mask[:, None, None] * torch.ones_like(scores).tril() == 0, -torch.inf)
)
inverted = model(lambda scores, mask: scores.masked_fill(mask, -torch.inf))
added = model(lambda scores, mask: scores + mask)
ignored = model(lambda scores, mask: scores)


class Optional(GPT2):
    def forward(self, ids, mask=None):
        for block in self.h:
            block.attn.given = mask
        return super().forward(ids)


def optional(a):
    made = mistake(Attention, mask=lambda m, s: s if m.given is None else s.masked_fill(m.given == 0, -torch.inf))(a)
    made.__class__ = Optional
    return made


on_a_gpu = mistake(
    GPT2, embed=lambda m, ids, p: m.wte(ids.cuda()) + m.wpe(p.to("cuda")) + torch.zeros(1, device="cuda:0")
)
narrow = mistake(GPT2, head=lambda m, x: m.lm_head(x.bfloat16()))


def with_forward(function):
    class Other(GPT2):
        forward = function

    def factory(a):
        made = GPT2(a)
        made.__class__ = Other
        return made

    return factory


def loss_alone(self, ids, targets):
    return torch.nn.CrossEntropyLoss()(GPT2.forward(self, ids).flatten(0, 1), targets.flatten())


def from_caches(self, ids, use_cache=False, kv_caches=None):
    for i in range(len(self.h)):
        kv_caches[i] = (kv_caches[i], i)
    return GPT2.forward(self, ids), kv_caches


class Stateful(GPT2):
    def initial_state(self, batch_size):
        return [0] * batch_size

    def forward(self, ids, state):
        assert len(state) == len(ids)
        return GPT2.forward(self, ids), state


def stateful(a):
    made = GPT2(a)
    made.__class__ = Stateful
    return made


loss, caches = with_forward(loss_alone), with_forward(from_caches)


def generator(a):
    class Stream(GPT2):
        def forward(self, ids):
            yield "a part"
            yield GPT2.forward(self, ids)

    made = GPT2(a)
    made.__class__ = Stream
    return made
"""


@pytest.fixture
def subjects(tmp_path: Path) -> Path:
    file = tmp_path / "calls.py"
    file.write_text(CODE)
    return file


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("boolean", "called with mask = the lower triangle [T, T], true where a token is seen"),
        ("padding", "called with mask = ones [B, T]"),
        ("optional", "called with mask = the lower triangle [T, T], true where a token is seen"),
        ("inverted", "called with mask = the upper triangle [T, T], true where a token is hidden"),
        ("added", "called with mask = the upper triangle [T, T] of -inf"),
        ("on_a_gpu", ""),
        ("generator", ""),
        ("loss", "answers with the loss, from whose computation its logits are taken"),
        ("stateful", ""),
        ("caches", "called with kv_caches = None for each layer"),
        ("narrow", "asks for 16-bit floats by itself, which were taken as float64"),
    ],
)
def test_correct_models_pass(validate: Validate, subjects: Path, name: str, note: str) -> None:
    result = validate(f"{subjects}:{name}", "task.stages=[layers,logits,loss,gradients]")
    assert result.code == 0, result.out + result.err
    assert_in(" ".join(result.out.split()), note)


def test_a_mask_that_is_not_used_is_no_excuse(validate: Validate, subjects: Path, launch: Path) -> None:
    assert validate(f"{subjects}:ignored", "task.stages=[layers,logits]").code == 1
    assert "mask missing" in summary_of(launch)["probable_cause"]


def test_a_mask_is_found_for_a_prompt_of_the_same_token(validate: Validate, subjects: Path) -> None:
    prompts = ('prompt="<|endoftext|><|endoftext|><|endoftext|>"', "task.gen_prompt=be", "decode.max_new_tokens=1")
    result = validate(f"{subjects}:optional", "task.stages=[layers,logits]", *prompts, prompts=False)
    assert result.code == 0, result.out + result.err


def test_a_length_is_settled_by_the_first_call() -> None:
    class Model(nn.Module):
        fails = False

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            if self.fails and ids.shape[1] < 8:
                raise ValueError("a module in it was replaced")
            return ids[..., None].expand(-1, -1, 5).float()

    model = Model()
    caller, ids = Caller(model, n_positions=8, vocab_size=5, n_layer=1), torch.zeros(1, 3, dtype=torch.long)
    assert caller(ids, ids) is not None
    model.fails = True
    with pytest.raises(SubjectError, match="was replaced"):
        caller(ids, ids)
    assert caller.length is None
    fresh = Caller(model, n_positions=8, vocab_size=5, n_layer=1)
    assert fresh(ids, ids) is not None
    assert fresh.length == 8
