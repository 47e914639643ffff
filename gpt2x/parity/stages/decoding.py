"""The stages cache, padding, sampling and generation: what turns logits into text."""

from itertools import product
from typing import Any

import torch
from torch import Tensor

from gpt2x.config.decode import DecodeConfig
from gpt2x.decoding.engine import decode_one_token, prefill
from gpt2x.decoding.filters.processors import process_logits
from gpt2x.decoding.filters.warpers import filter_logits
from gpt2x.decoding.generate import Request, generate
from gpt2x.decoding.sampler import Sampler
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.comparison import Comparison, checked, device_of, skipped
from gpt2x.parity.measures import ERROR_RATIO, RELATIVE_TOLERANCE, first_difference, relative_difference
from gpt2x.parity.reference.oracle import oracle_filter, oracle_process
from gpt2x.parity.rows import ParityRow, SideBySideRow

_CACHED = 64  # tokens of the prompt that the cache is tried on: the work grows with their square
_ROWS = 4  # positions of the prompt whose logits the filters are tried on
_TOTAL_VARIATION = 1e-6
_DRAWS, _P_VALUE = 4096, 1e-3
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
_NOT_OURS = "is of gpt2x's own; subjects are called with ids alone"


@torch.no_grad()
def cache_rows(c: Comparison) -> list[ParityRow]:
    """Cached against uncached logits: token by token, and with the prompt split in two at every point."""
    if not c.ours:
        return [skipped("cache", f"the KV cache {_NOT_OURS}")]
    model: GPT2 = c.exact.module
    ids = c.ids(c.exact)[:, :_CACHED]
    T = ids.shape[1]
    expected = model(ids)  # [1, T, V]
    cache = model.new_cache(1, T)
    steps = torch.cat([model(ids[:, i : i + 1], cache) for i in range(T)], dim=1)
    by_step = [relative_difference(steps[:, i], expected[:, i]) for i in range(T)]
    wrong = [i for i, value in enumerate(by_step) if not value <= c.bar]
    note = f"from token {wrong[0]} on" if wrong else ""
    value = by_step[wrong[0]] if wrong else max(by_step)
    rows = [checked("cache", f"{T} tokens, one by one", "relative_difference", value, c.bar, note)]
    for split in range(1, T):
        cache = model.new_cache(1, T)
        both = torch.cat([model(ids[:, :split], cache), model(ids[:, split:], cache)], dim=1)
        value = relative_difference(both, expected)
        rows.append(checked("cache", f"split after {split} of {T}", "relative_difference", value, c.bar))
    return rows


@torch.no_grad()
def padding_rows(c: Comparison) -> list[ParityRow]:
    """The prompt, its first half and its first token in one batch, and then a token more, against each alone."""
    if not c.ours:
        return [skipped("padding", f"padding {_NOT_OURS}")]
    model: GPT2 = c.exact.module
    ids = c.ids(c.exact)[0].tolist()
    T = len(ids)
    lengths = [T, (T + 1) // 2, 1]
    more = [ids[length % T] for length in lengths]
    fits = model.config.n_positions > T
    cache = model.new_cache(len(lengths), T + fits)
    found = [prefill(model, [ids[:length] for length in lengths], cache)]  # [3, V]
    if fits:
        found.append(decode_one_token(model, more, cache))
    rows = []
    for row, length in enumerate(lengths):
        alone = torch.tensor([[*ids[:length], more[row]][: length + fits]], device=found[0].device)
        expected = model(alone)[0, length - 1 :]  # [1 or 2, V]
        value = relative_difference(torch.stack([logits[row] for logits in found]), expected)
        rows.append(checked("padding", f"{length} of {T} tokens", "relative_difference", value, c.bar))
    return rows


def sampling_rows(c: Comparison) -> list[ParityRow]:
    """The filtered distributions against transformers' logits processors; then drawn tokens against one of them."""
    if not c.ours:
        return [skipped("sampling", f"sampling {_NOT_OURS}")]
    if not c.live:
        return [skipped("sampling", "a saved reference has no logits processors; run without task.reference")]
    T = len(c.record.logits)
    where = sorted({(T - 1) * i // (_ROWS - 1) for i in range(_ROWS)})
    logits = c.record.logits.double()[where]  # [_ROWS, V]
    rows = []
    for settings in _FILTERS:
        decode = DecodeConfig(**settings)
        rows += _distribution_rows(settings, filter_logits(logits, decode), oracle_filter(logits, decode))
    # Texts that have begun to repeat the prompt, so that something is forbidden: the token that came next in it.
    ids = c.ids(c.exact)[0].tolist()
    texts = [ids + ids[: i + 1] for i in where]
    n_prompts = [len(text) - n_new for n_new, text in enumerate(texts)]
    eos_id = int(logits[0].argmax())  # any token may stand for it, and the likeliest is missed most
    for settings in _PROCESSORS:
        args = (logits, texts, n_prompts, DecodeConfig(**settings), eos_id)
        rows += _distribution_rows(settings, process_logits(*args), oracle_process(*args))
    return [*rows, _chi_square(logits[-1:])]


def _distribution_rows(settings: dict[str, Any], ours: Tensor, theirs: Tensor) -> list[ParityRow]:
    """How far the distributions of logits [_ROWS, V] are apart."""
    ours, theirs = ours.softmax(-1), theirs.softmax(-1)
    site = " ".join(f"{key}={value}" for key, value in settings.items())
    differing = int(((ours > 0) != (theirs > 0)).sum())
    variation = (ours - theirs).abs().sum(-1).max().item() / 2
    return [
        checked("sampling", site, "differing_support", differing, 0),
        checked("sampling", site, "total_variation", variation, _TOTAL_VARIATION),
    ]


def _chi_square(logits: Tensor) -> ParityRow:
    """Pearson's test of the sampler's draws; seeds are fixed, so that it fails always or never."""
    decode = DecodeConfig(top_k=8)
    probabilities = oracle_filter(logits, decode).softmax(-1)[0]  # [V]
    counts = torch.zeros_like(probabilities)
    sampler = Sampler(decode, 0, None)
    for start in range(0, _DRAWS, 256):
        uniforms = [next(sampler.uniforms("", i)) for i in range(start, start + 256)]
        picks = sampler.pick(logits.expand(256, -1), [[]] * 256, [0] * 256, uniforms)
        counts += torch.bincount(torch.tensor([pick.token for pick in picks]), minlength=len(counts))
    kept = probabilities * _DRAWS >= 5  # the test's usual least expected count; the rest is one class
    expected = torch.cat([probabilities[kept], probabilities[~kept].sum()[None]]) * _DRAWS
    seen = torch.cat([counts[kept], counts[~kept].sum()[None]])
    outside = int(counts[probabilities == 0].sum())
    classes = expected > 0
    statistic = ((seen - expected)[classes] ** 2 / expected[classes]).sum()
    freedom = int(classes.sum()) - 1
    p = torch.special.gammaincc(torch.tensor(freedom / 2), statistic / 2).item() if freedom else 1.0
    ok = p >= _P_VALUE and outside == 0
    note = f"at least; {_DRAWS} draws, chi-square {statistic:.3g}"
    return ParityRow("sampling", "draws", "", "p_value", p, _P_VALUE, "ok" if ok else "mismatch", note)


def generation_rows(c: Comparison) -> tuple[list[ParityRow], list[SideBySideRow]]:
    """Greedy tokens of both; at the first difference, both tokens and whether the reference had a near-tie there."""
    if not c.record.facts.generations:
        return [skipped("generation", "the saved reference has none")], []
    rows, texts = [], []
    decode = c.checkpoint.tokenizer.decode
    for i, theirs in enumerate(c.record.facts.generations):
        ours = _greedy(c, theirs.prompt_ids)
        where = first_difference(ours, theirs.ids)
        margin, verdict, note = None, "same", ""
        if where is not None:
            margin = theirs.top2_margins[min(where, len(theirs.ids) - 1)]
            verdict = "tie" if margin <= _tie(c) else "different"
            note = f"token {where}: subject {_token(c, ours, where)}, reference {_token(c, theirs.ids, where)}; "
            note += f"{verdict}, top-2 margin {margin:.3g}"
        matched = len(theirs.ids) if where is None else where
        status = "mismatch" if verdict == "different" and c.dtype != "int8" else "ok"
        rows.append(
            ParityRow(
                "generation", f"prompt {i}", "greedy", "tokens_before_first_difference", matched, None, status, note
            )
        )
        texts.append(SideBySideRow(theirs.prompt, decode(ours), decode(theirs.ids), matched, where, margin, verdict))
    return rows, texts


def _greedy(c: Comparison, ids: list[int]) -> list[int]:
    eos_id, n = c.checkpoint.tokenizer.eos_id, c.record.facts.max_new_tokens
    if c.ours:
        sampler = Sampler(DecodeConfig(greedy=True, max_new_tokens=n), 0, eos_id)
        return next(generate(c.subject.module, [Request(ids)], sampler))[1].ids
    new: list[int] = []
    with torch.no_grad():
        while len(new) < n and (not new or new[-1] != eos_id):
            input_ids = torch.tensor([ids + new], device=device_of(c.subject))
            new.append(int(c.subject.logits(input_ids)[0, -1].argmax()))
    return new


def _tie(c: Comparison) -> float:
    """The largest margin that allowed rounding can turn: two logits, each off by 4 times the reference's error."""
    scale = c.record.logits.abs().max().item()
    if c.subject is c.exact:
        return 2 * RELATIVE_TOLERANCE[c.record.dtype] * scale
    error = (c.record.logits_in_dtype - c.record.logits.double()).abs().max().item()
    return 2 * ERROR_RATIO * max(error, torch.finfo(c.record.dtype).eps * scale)


def _token(c: Comparison, ids: list[int], where: int) -> str:
    return f"{c.checkpoint.tokenizer.decode([ids[where]])!r} ({ids[where]})" if where < len(ids) else "nothing"
