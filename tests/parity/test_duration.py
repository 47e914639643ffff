"""validate of a large model says how long it will take."""

from itertools import count

import pytest

from gpt2x.parity import duration
from tests.parity.conftest import Validate


def test_the_estimate_is_made_of_the_time_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2x.model.config import GPT2Config
    from gpt2x.model.gpt2 import GPT2

    model = GPT2(GPT2Config(vocab_size=60, n_positions=16, n_embd=48, n_layer=2, n_head=3))
    ticks = count()
    monkeypatch.setattr("gpt2x.parity.duration.time.perf_counter", lambda: next(ticks))
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    passes = duration._OF_PROMPT + duration._OF_CONTEXT
    assert duration.estimated_seconds(model, 5) == pytest.approx(passes * n_parameters / (60 * 48))


@pytest.mark.parametrize(
    ("seconds", "stages", "said"),
    [
        (200.0, "config,logits", "validating takes less than about 3 min"),
        (59.0, "config,logits", None),
    ],
)
def test_a_long_validation_says_so(
    validate: Validate, monkeypatch: pytest.MonkeyPatch, seconds: float, stages: str, said: str | None
) -> None:
    monkeypatch.setattr("gpt2x.tasks.validate.estimated_seconds", lambda model, n_tokens: seconds)
    result = validate(None, f"task.stages=[{stages}]")
    assert result.code == 0
    assert (said in result.err) if said else ("validating takes" not in result.err)
