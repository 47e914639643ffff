"""What validate compares, a function a stage: rows in, none of them guessed."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2x.checkpoints import Checkpoint
from gpt2x.checkpoints.names import is_conv1d
from gpt2x.decoding.generate import generate
from gpt2x.decoding.sampler import Sampler
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.compare import RELATIVE_TOLERANCE, LogitDifference, first_difference
from gpt2x.reference import reference_greedy, reference_parameters, reference_tokenize
from gpt2x.results import ParityRow, SideBySideRow
from gpt2x.schema import DecodeConfig

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

# What byte-level BPEs get wrong: joiners, scripts, white space, contractions, digits, control characters.
TEXTS = {
    "prose": "The quick brown fox jumps over the lazy dog.",
    "contractions": "I'm you're he'll we've they'd it's CAN'T don't 'tis",
    "numbers": "3.14159, 1,000,000; 0x7f 2026-11-23 007",
    "spaces": "  two,   three,    four \t tab\t\ttabs   ",
    "newlines": "a\nb\n\nc\r\nd\r\n\r\n e \n",
    "accents": "naïve café Ångström, decomposed: e\u0301 n\u0303",
    "emoji": "😀 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "scripts": "漢字かな交じり文 한국어 العربية עברית हिन्दी ไทย Русский",
    "controls": "NUL \x00 bell \x07 escape \x1b zero-width \u200b BOM \ufeff",
    "special": "before<|endoftext|>after <|endoftext|> <|endoftext",
}

KL_ROUNDING = 1e-12  # of a KL over 50,257 tokens in float64; nats


def config_rows(subject: GPT2, reference: "GPT2LMHeadModel") -> list[ParityRow]:
    """Parameter counts, the tied head counted once."""
    ours, theirs = count_parameters(subject), count_parameters(reference)
    difference = abs(ours - theirs)
    note = f"subject {ours:,}, reference {theirs:,}" if difference else f"{ours:,} in both"
    return [ParityRow("config", "model", "", "parameter_difference", difference, 0, _status(difference, 0), note)]


def count_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def tokenizer_rows(checkpoint: Checkpoint, prompt: str) -> list[ParityRow]:
    """Ids of the prompt and of ugly texts, and the texts back from the reference's ids."""
    texts = {"prompt": prompt} | TEXTS
    rows = []
    references = reference_tokenize(checkpoint.tokenizer_dir, list(texts.values()))
    for (site, text), (theirs, their_text) in zip(texts.items(), references, strict=True):
        ours = checkpoint.tokenizer.encode(text)
        where = first_difference(ours, theirs)
        at = slice(where, None if where is None else where + 3)
        note = "" if where is None else f"from token {where}: {ours[at]}, not {theirs[at]}"
        differing = max(len(ours), len(theirs)) - sum(a == b for a, b in zip(ours, theirs, strict=False))
        rows.append(ParityRow("tokenizer", site, "encode", "differing_ids", differing, 0, _status(differing, 0), note))
        changed = int(checkpoint.tokenizer.decode(theirs) != their_text)
        rows.append(ParityRow("tokenizer", site, "decode", "differing_texts", changed, 0, _status(changed, 0), ""))
    return rows


def weight_rows(subject: GPT2, reference: "GPT2LMHeadModel") -> list[ParityRow]:
    """Every tensor of both models, Conv1D matrices transposed to nn.Linear's layout; bar 0."""
    ours = {name: tensor for name, tensor in subject.state_dict().items() if name != "lm_head.weight"}
    theirs = reference_parameters(reference)
    rows = []
    for name in dict.fromkeys([*theirs, *ours]):
        a, b = ours.get(name), theirs.get(name)
        transposed = " transposed" if is_conv1d(name) else ""
        if a is None or b is None:
            status = "missing" if a is None else "unexpected"
            rows.append(_weight_row(name, None, status, ""))
            continue
        b = b.t() if transposed else b
        if a.shape != b.shape:
            note = f"subject {list(a.shape)}, reference{transposed} {list(b.shape)}"
            rows.append(_weight_row(name, None, "shape_mismatch", note))
            continue
        difference = (a - b).abs().max().item()
        rows.append(_weight_row(name, difference, _status(difference, 0), f"{list(a.shape)}{transposed}"))
    tied = subject.lm_head.weight is subject.transformer.wte.weight
    rows.append(
        _weight_row("lm_head.weight", float(not tied), "ok" if tied else "mismatch", "tied to transformer.wte.weight")
    )
    return rows


def _weight_row(site: str, value: float | None, status: str, note: str) -> ParityRow:
    return ParityRow("weights", site, "", "max_abs_difference", value, 0, status, note)


def logit_tolerance(reference_logits: Tensor, dtype: torch.dtype) -> float:
    """The largest logit difference that rounding in `dtype` explains."""
    return RELATIVE_TOLERANCE[dtype] * reference_logits.abs().max().item()


@torch.inference_mode()
def logits_of(subject: GPT2, reference: "GPT2LMHeadModel", ids: list[int]) -> tuple[Tensor, Tensor]:
    """Both models' logits for one prompt, [T, V] each."""
    input_ids = torch.tensor([ids], device=subject.lm_head.weight.device)
    return subject(input_ids)[0], reference(input_ids).logits[0]


def logit_rows(difference: LogitDifference, tolerance: float) -> list[ParityRow]:
    """The prompt's logits: a KL within what the tolerance allows, and no other likeliest token but in a tie.

    Logits that move by at most t move the distribution by a KL of at most t^2 / 2 (Hoeffding's lemma).
    """
    rows = []
    kl_tolerance = max(tolerance**2 / 2, KL_ROUNDING)
    for metric, bar in (("max_abs", tolerance), ("mean_abs", tolerance), ("mean_kl", kl_tolerance)):
        value = getattr(difference, metric)
        name = metric if metric == "mean_kl" else f"{metric}_difference"
        rows.append(ParityRow("logits", "lm_head", "", name, value, bar, _status(value, bar), ""))
    # Two logits may swap places only if both moved by the tolerance at most.
    tie = difference.largest_lost_margin <= 2 * tolerance
    note = "" if difference.top1_agreement == 1 else f"largest margin lost {difference.largest_lost_margin:.3g}"
    rows.append(
        ParityRow(
            "logits", "lm_head", "", "top1_agreement", difference.top1_agreement, 1, "ok" if tie else "mismatch", note
        )
    )
    return rows


def compare_generation(
    checkpoint: Checkpoint, reference: "GPT2LMHeadModel", prompt: str, max_new_tokens: int
) -> SideBySideRow:
    """Greedy tokens of both models; at the first difference, whether the reference had a near-tie there."""
    tokenizer, subject = checkpoint.tokenizer, checkpoint.model
    ids = tokenizer.encode(prompt)
    picker = Sampler(DecodeConfig(greedy=True), 0, [(prompt, 0)])
    ours = generate(subject, [ids], picker, max_new_tokens, tokenizer.eos_id)[0].ids
    theirs = reference_greedy(reference, ids, max_new_tokens, tokenizer.eos_id)
    where = first_difference(ours, theirs)
    verdict, margin = "same", None
    if where is not None:
        logits = logits_of(subject, reference, ids + theirs[:where])[1][-1:].double()  # [1, V]
        top2 = logits[0].topk(2).values
        margin = (top2[0] - top2[1]).item()
        verdict = "tie" if margin <= 2 * logit_tolerance(logits, subject.lm_head.weight.dtype) else "different"
    return SideBySideRow(
        prompt,
        tokenizer.decode(ours),
        tokenizer.decode(theirs),
        len(theirs) if where is None else where,
        where,
        margin,
        verdict,
    )


def generation_rows(side_by_side: list[SideBySideRow]) -> list[ParityRow]:
    return [
        ParityRow(
            "generation",
            f"prompt {i}",
            "greedy",
            "tokens_before_first_difference",
            row.matched,
            None,
            "mismatch" if row.verdict == "different" else "ok",
            "" if row.verdict == "same" else f"{row.verdict}, top-2 margin {row.top2_margin:.3g}",
        )
        for i, row in enumerate(side_by_side)
    ]


def _status(value: float, tolerance: float) -> str:
    if value != value or value == float("inf"):
        return "nonfinite"
    return "ok" if value <= tolerance else "mismatch"
