"""The CSVs: a dataclass a row type, its fields the header in this order; writing, reading, collecting."""

import csv
import io
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from gpt2x.paths import write_text

csv.field_size_limit(2**31 - 1)  # a long prompt is one field


@dataclass(frozen=True)
class GenerationRow:
    """generations.csv: one row a sample."""

    prompt_id: str
    sample: int
    prompt: str
    completion: str
    n_prompt_tokens: int
    n_new_tokens: int
    """The end-of-text token counts, though it is not part of the completion."""
    finish_reason: str
    """length | eos | stop."""
    logprob: float
    """Sum over the new tokens, nats, under the unfiltered model."""
    model: str
    weights: str
    greedy: bool
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float
    no_repeat_ngram_size: int | None
    min_new_tokens: int
    stop: str | None
    """The stop strings, as a JSON list."""
    num_beams: int
    length_penalty: float
    on_overflow: str
    seed: int


@dataclass(frozen=True, slots=True)  # there may be millions
class TokenRow:
    """tokens.csv: with decode.logprobs=k, for each new token a row for each of the k likeliest, and for itself."""

    prompt_id: str
    sample: int
    step: int
    """0 for the first new token."""
    rank: int
    """1 for the likeliest."""
    token_id: int
    token: str
    """Its text alone; bytes that are not UTF-8 are U+FFFD."""
    logprob: float
    """Nats, under the unfiltered model."""
    chosen: bool
    kept: int
    """Tokens that could have been chosen at this step, after all filters; 1 if greedy."""


@dataclass(frozen=True)
class ParityRow:
    """parity.csv: one row a comparison."""

    stage: str
    site: str
    """Tensor, module, text or prompt that is compared, by Hugging Face's name."""
    mode: str
    """How: isolated or propagated, the dtype, encode or decode, greedy."""
    metric: str
    value: float | None
    tolerance: float | None
    """Empty where the value is said, and not judged."""
    status: str
    """ok | mismatch | missing | unexpected | shape_mismatch | nonfinite | skipped."""
    note: str

    @property
    def bad(self) -> bool:
        """Neither ok nor skipped."""
        return self.status not in ("ok", "skipped")


@dataclass(frozen=True)
class SideBySideRow:
    """side_by_side.csv: one row a prompt, continued greedily by both models."""

    prompt: str
    subject_text: str
    reference_text: str
    matched: int
    """New tokens that are the same, before the first difference."""
    first_difference: int | None
    """Position among the new tokens."""
    top2_margin: float | None
    """There, between the reference's two largest logits."""
    verdict: str
    """same | tie | different."""


@dataclass(frozen=True)
class SummaryRow:
    """summary.csv: one row a run."""

    model: str
    weights: str
    subject: str
    device: str
    dtype: str
    parameters_subject: int
    parameters_reference: int
    verdict: str
    """pass | fail."""
    first_divergence: str
    """The first module that is wrong, `input of` one that is given the wrong thing, or `stage: site`."""
    probable_cause: str
    """The mistake that reproduces it, or 'unknown'."""
    max_abs_logit_difference: float | None
    """In the dtype asked for, as are the three below."""
    mean_kl: float | None
    """Of the subject's next-token distribution from the reference's, nats."""
    top1_agreement: float | None
    generations_matched: int
    generations_total: int
    relative_difference: float | None
    """Same function? Of the logits in float64, over the largest of the reference's."""
    error_ratio: float | None
    """As accurate? RMS error of the logits in the dtype asked for, over the reference's own."""


@dataclass(frozen=True)
class TrainRow:
    """train.csv: one row an evaluation."""

    step: int
    train_loss: float
    """Mean over the steps since the row before; nats a token."""
    val_loss: float
    """Over the whole validation split; nats a token."""
    val_bits_per_byte: float
    lr: float
    tokens: int
    """Trained on so far."""


@dataclass(frozen=True)
class BenchmarkRow:
    """benchmark.csv: one row an engine, dtype and batch size; of times, so no two runs give the same bytes."""

    engine: str
    """gpt2x | gpt2x_lookup | transformers | ctranslate2 | openvino."""
    dtype: str
    batch: int
    """Prompts generated together."""
    prompt_tokens: int
    new_tokens: int
    """Of each prompt, all greedy."""
    ms_per_step: float
    """A step is a token of every row. Median over the rounds: new_tokens' time less the first's, over the others."""
    ms_per_step_p10: float
    ms_per_step_p90: float
    tokens_per_second: float
    """New tokens of all rows over the time of the whole generation, prompts included; median over the rounds."""
    ratio_to_transformers: float | None
    """Time of transformers in float32 over this one's, in the same round; median. Empty if that was left out."""
    first_token_ms: float
    """A generation of one token a row: median over the rounds."""
    peak_rss_mb: float
    """Of the engine's process, from its start to its end, so over all batch sizes; 1e6 bytes."""
    load_seconds: float
    """From nothing but imports to a model that is ready, its files in the page cache."""
    same_tokens: float | None
    """Share of the new tokens before a row's first difference from transformers in float32 (else from gpt2x)."""


@dataclass(frozen=True)
class TimingRow:
    """timing.csv: where the time of a run went."""

    stage: str
    seconds: float


def to_csv(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> str:
    """RFC 4180; text quoted, floats to 9 significant digits, None empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC)
    if header is not None:
        writer.writerow(header)
    for row in rows:
        writer.writerow([float(f"{value:.9g}") if isinstance(value, float) else value for value in row])
    return stream.getvalue()


def write_rows(path: Path, row_type: type, rows: Iterable[Any]) -> None:
    """Writes rows of one dataclass, whole or not at all; UserError if the file cannot be written."""
    header = [field.name for field in fields(row_type)]
    write_text(path, to_csv(header, map(row_values, rows)))


def row_values(row: Any) -> list[Any]:
    return [getattr(row, field.name) for field in fields(row)]


@dataclass(frozen=True)
class JobRow:
    """jobs.csv of a sweep: one row a job."""

    job: str
    """The job's folder: a hash of its configuration."""
    overrides: str
    status: str
    """done | failed | skipped (does not fit in memory) | interrupted."""
    error: str | None
    seconds: float


TABLES = {
    "generations.csv": GenerationRow,
    "tokens.csv": TokenRow,
    "summary.csv": SummaryRow,
    "parity.csv": ParityRow,
    "side_by_side.csv": SideBySideRow,
    "train.csv": TrainRow,
    "benchmark.csv": BenchmarkRow,
    "timing.csv": TimingRow,
}


def read_rows(path: Path, row_type: type) -> list[Any]:
    """Rows as written by write_rows, with their types; an empty text reads as '' or None, as the field allows."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(rows_of(csv.DictReader(stream), row_type))


def rows_of(records: Iterable[dict[str, str]], row_type: type) -> Iterator[Any]:
    """Records of a CSV as rows; ValueError or TypeError where one is not whole."""
    hints = get_type_hints(row_type)
    for record in records:
        yield row_type(**{name: _parse(text, hints[name]) for name, text in record.items()})


def _parse(text: str, hint: Any) -> Any:
    types = get_args(hint) or (hint,)
    if text == "" and type(None) in types:
        return None
    if types[0] is bool:
        return text == "True"
    return types[0](text)


def collect_sweep(sweep_dir: Path, jobs: list[tuple[Path, dict[str, Any]]]) -> None:
    """Writes jobs.csv, and each table of the jobs concatenated, with the job and the swept settings before it.

    `jobs` are folders and their manifests' facts, in the order of the sweep.
    """
    settings = [facts["settings"] for _, facts in jobs]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    swept = [key for key in keys if any(setting.get(key) != settings[0].get(key) for setting in settings)]
    rows = [
        JobRow(folder.name, shlex.join(facts["overrides"]), facts["status"], facts["error"], facts["seconds"])
        for folder, facts in jobs
    ]
    write_rows(sweep_dir / "jobs.csv", JobRow, rows)
    for name, row_type in TABLES.items():
        columns = [field.name for field in fields(row_type)]
        extra = [key for key in swept if key not in columns]  # a swept prompt is in its table already
        table = [
            [folder.name, *(_cell(facts["settings"].get(key)) for key in extra), *row_values(row)]
            for folder, facts in jobs
            if facts["status"] == "done" and (folder / name).is_file()
            for row in read_rows(folder / name, row_type)
        ]
        if table:
            write_text(sweep_dir / name, to_csv(["job", *extra, *columns], table))


def _cell(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, type(None))) else json.dumps(value, ensure_ascii=False)
