"""The stage tokenizer: ids of the prompt and of difficult texts, and the texts that the reference's ids decode to."""

from gpt2x.config.tasks.validate import Stage
from gpt2x.parity.checks import Metric, Mode, checked
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.measures import first_difference
from gpt2x.parity.stages.stage import ParityStage, StageResult, only_ours
from gpt2x.parity.texts import TEXTS


def _compare(c: Comparison) -> StageResult:
    checks, tokenizer = [], c.checkpoint.tokenizer
    for site, text in ({"prompt": c.record.facts.prompt} | TEXTS).items():
        theirs, their_text = c.record.facts.texts[site]
        ours = tokenizer.encode(text)
        where = first_difference(ours, theirs)
        at = slice(where, None if where is None else where + 3)
        note = "" if where is None else f"from token {where}: {ours[at]}, not {theirs[at]}"
        differing = max(len(ours), len(theirs)) - sum(a == b for a, b in zip(ours, theirs, strict=False))
        checks.append(checked(Stage.TOKENIZER, site, Metric.DIFFERING_IDS, differing, 0, note, Mode.ENCODE))
        changed = int(tokenizer.decode(theirs) != their_text)
        checks.append(checked(Stage.TOKENIZER, site, Metric.DIFFERING_TEXTS, changed, 0, mode=Mode.DECODE))
    return StageResult(checks)


TOKENIZER = ParityStage(Stage.TOKENIZER, _compare, (only_ours("the subject takes token ids"),))
