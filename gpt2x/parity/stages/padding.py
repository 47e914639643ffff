"""The stage padding: prompts of several lengths in one batch against each of them alone."""

import torch

from gpt2x.config.tasks.validate import Stage
from gpt2x.decoding.engine import decode_one_token, prefill
from gpt2x.parity.checks import Metric, checked
from gpt2x.parity.comparison import Comparison, gpt2_of
from gpt2x.parity.measures import relative_difference
from gpt2x.parity.stages.stage import ParityStage, StageResult, only_ours


@torch.no_grad()
def _compare(c: Comparison) -> StageResult:
    """The prompt, its first half and its first token in one batch; then, if the context allows, one more token."""
    model = gpt2_of(c.exact)
    ids = c.ids[0].tolist()
    T = len(ids)
    lengths = [T, (T + 1) // 2, 1]
    more = [ids[length % T] for length in lengths]
    fits = model.config.n_positions > T
    cache = model.new_cache(len(lengths), T + fits)
    found = [prefill(model, [ids[:length] for length in lengths], cache)]  # [3, V]
    if fits:
        found.append(decode_one_token(model, more, cache))
    checks = []
    for row, length in enumerate(lengths):
        alone = torch.tensor([[*ids[:length], more[row]][: length + fits]], device=found[0].device)
        expected = model(alone)[0, length - 1 :]  # [1 or 2, V]
        value = relative_difference(torch.stack([logits[row] for logits in found]), expected)
        site = f"{length} of {T} tokens"
        checks.append(checked(Stage.PADDING, site, Metric.RELATIVE_DIFFERENCE, value, c.tolerance))
    return StageResult(checks)


PADDING = ParityStage(
    Stage.PADDING, _compare, (only_ours("only gpt2x's own model takes padded batches that can be checked"),)
)
