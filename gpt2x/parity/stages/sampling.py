"""The stage sampling: filtered distributions against transformers' logits processors; then the tokens drawn."""

from itertools import product
from typing import Any

import torch
from torch import Tensor

from gpt2x.config.decode import DecodeConfig
from gpt2x.config.tasks.validate import Stage
from gpt2x.decoding.filters.processors import process_logits
from gpt2x.decoding.filters.warpers import filter_logits
from gpt2x.decoding.sampler import Sampler
from gpt2x.parity.checks import Check, Metric, Status, checked
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.reference.oracle import oracle_filter, oracle_process
from gpt2x.parity.stages.stage import ParityStage, StageResult, needs_oracle, only_ours

_ROWS = 4  # positions of the prompt whose logits the filters are tried on
_TOTAL_VARIATION = 1e-6
_DRAWS, _P_VALUE = 4096, 1e-3
_BATCH = 16  # draws at a time: rows that fit in a processor's cache take half as long as 256 rows
_FILTERS: tuple[dict[str, Any], ...] = (
    *(
        {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        for temperature, top_k, top_p in product((1.0, 0.5, 1.7), (None, 1, 5, 50), (None, 0.1, 0.5, 0.95))
    ),
    *({"min_p": p} for p in (0.01, 0.1, 0.5, 1.0)),
    *({"typical_p": p} for p in (0.05, 0.2, 0.5, 0.95)),
    {"temperature": 1.7, "top_k": 50, "min_p": 0.1},
    {"temperature": 0.5, "typical_p": 0.5},
    {"top_k": 50, "typical_p": 0.9},
    {"top_p": 0.95, "min_p": 0.02},
    {"top_p": 0.95, "typical_p": 0.7},
    {"min_p": 0.05, "typical_p": 0.5},
)
_PROCESSORS: tuple[dict[str, Any], ...] = (
    *({"repetition_penalty": penalty} for penalty in (0.7, 1.3)),
    *({"no_repeat_ngram_size": n} for n in (1, 2, 3)),
    {"min_new_tokens": 2},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 2},
)


def _compare(c: Comparison) -> StageResult:
    T = len(c.record.logits)
    where = sorted({(T - 1) * i // (_ROWS - 1) for i in range(_ROWS)})
    logits = c.record.logits.double()[where]  # [_ROWS, V]
    checks = []
    for settings in _FILTERS:
        decode = DecodeConfig(**settings)
        checks += _distributions(settings, filter_logits(logits, decode), oracle_filter(logits, decode))
    # Texts that have begun to repeat the prompt, so that the token that followed in the prompt is forbidden.
    ids = c.ids[0].tolist()
    texts = [ids + ids[: i + 1] for i in where]
    n_prompts = [len(text) - n_new for n_new, text in enumerate(texts)]
    eos_id = int(logits[0].argmax())  # any token may stand for it, and the likeliest is missed most
    for settings in _PROCESSORS:
        args = (logits, texts, n_prompts, DecodeConfig(**settings), eos_id)
        checks += _distributions(settings, process_logits(*args), oracle_process(*args))
    return StageResult([*checks, _draws(logits[-1:])])


def _distributions(settings: dict[str, Any], ours: Tensor, theirs: Tensor) -> list[Check]:
    """How far the distributions of logits [_ROWS, V] are apart."""
    ours, theirs = ours.softmax(-1), theirs.softmax(-1)
    site = " ".join(f"{key}={value}" for key, value in settings.items())
    differing = int(((ours > 0) != (theirs > 0)).sum())
    variation = (ours - theirs).abs().sum(-1).max().item() / 2
    return [
        checked(Stage.SAMPLING, site, Metric.DIFFERING_SUPPORT, differing, 0),
        checked(Stage.SAMPLING, site, Metric.TOTAL_VARIATION, variation, _TOTAL_VARIATION),
    ]


def _draws(logits: Tensor) -> Check:
    """Pearson's chi-square test of tokens drawn from logits [1, V]. The seeds are fixed: it fails always or never."""
    decode = DecodeConfig(top_k=8)
    probabilities = oracle_filter(logits, decode).softmax(-1)[0]  # [V]
    counts = torch.zeros_like(probabilities)
    sampler = Sampler(decode, 0, None)
    for start in range(0, _DRAWS, _BATCH):
        uniforms = [next(sampler.uniforms("", i)) for i in range(start, start + _BATCH)]
        picks = sampler.pick(logits.expand(_BATCH, -1), [[]] * _BATCH, [0] * _BATCH, uniforms)
        counts += torch.bincount(torch.tensor([pick.token for pick in picks]), minlength=len(counts))
    kept = probabilities * _DRAWS >= 5  # the test's usual least expected count; all other tokens form one class
    expected = torch.cat([probabilities[kept], probabilities[~kept].sum()[None]]) * _DRAWS
    seen = torch.cat([counts[kept], counts[~kept].sum()[None]])
    outside = int(counts[probabilities == 0].sum())
    classes = expected > 0
    statistic = ((seen - expected)[classes] ** 2 / expected[classes]).sum()
    freedom = int(classes.sum()) - 1
    p = torch.special.gammaincc(torch.tensor(freedom / 2), statistic / 2).item() if freedom else 1.0
    status = Status.OK if p >= _P_VALUE and outside == 0 else Status.MISMATCH
    note = f"the tolerance is a minimum; {_DRAWS} draws, chi-square {statistic:.3g}"
    return Check(Stage.SAMPLING, status, "draws", Metric.P_VALUE, value=p, tolerance=_P_VALUE, note=note)


SAMPLING = ParityStage(
    Stage.SAMPLING,
    _compare,
    (
        only_ours("only gpt2x's own sampling can be checked; subjects take token ids alone"),
        needs_oracle("a saved reference has no logits processors; run without task.reference"),
    ),
)
