"""The stage cache: logits with the KV cache against logits without it."""

import torch

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Metric, checked
from gpt2x.parity.comparison import Comparison, gpt2_of
from gpt2x.parity.measures import relative_difference
from gpt2x.parity.stages.stage import ParityStage, StageResult, only_ours

_TOKENS = 64  # of the prompt, at most: the work grows with their square


@torch.no_grad()
def _compare(c: Comparison) -> StageResult:
    """Token by token, and with the prompt split in two at every position."""
    model = gpt2_of(c.exact)
    ids = c.ids[:, :_TOKENS].to(model.lm_head.weight.device)
    T = ids.shape[1]
    expected = model(ids)  # [1, T, V]
    cache = model.new_cache(1, T)
    steps = torch.cat([model(ids[:, i : i + 1], cache) for i in range(T)], dim=1)  # [1, T, V]
    by_step = [relative_difference(steps[:, i], expected[:, i]) for i in range(T)]
    wrong = [i for i, value in enumerate(by_step) if not value <= c.tolerance]
    note = f"from token {wrong[0]} on" if wrong else ""
    value = by_step[wrong[0]] if wrong else max(by_step)
    metric = Metric.RELATIVE_DIFFERENCE
    checks = [checked(Stage.CACHE, f"{T} tokens, one by one", metric, value, c.tolerance, note)]
    for split in range(1, T):
        cache = model.new_cache(1, T)
        both = torch.cat([model(ids[:, :split], cache), model(ids[:, split:], cache)], dim=1)
        value = relative_difference(both, expected)
        checks.append(checked(Stage.CACHE, f"split after {split} of {T}", metric, value, c.tolerance))
    return StageResult(checks)


CACHE = ParityStage(Stage.CACHE, _compare, (only_ours("only gpt2x's own model has a KV cache that can be checked"),))
