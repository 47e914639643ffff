"""task=validate: is this GPT-2 the real GPT-2; if not, which module is wrong, and why?"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.config.schema import Config
from gpt2x.config.tasks.validate import Stage, ValidateTask
from gpt2x.decoding.generate import check_length
from gpt2x.device import find_device, find_dtype
from gpt2x.errors import UserError
from gpt2x.memory import available_memory
from gpt2x.parity.comparison import Comparison, failed, skipped
from gpt2x.parity.diagnosis.diagnose import Diagnosis, diagnose
from gpt2x.parity.reference.ask import ask_oracle
from gpt2x.parity.reference.record import Record
from gpt2x.parity.reference.saved import check_savable, load_record, save_record
from gpt2x.parity.rows import ParityRow, SideBySideRow, SummaryRow
from gpt2x.parity.stages.decoding import cache_rows, generation_rows, padding_rows, sampling_rows
from gpt2x.parity.stages.layers import layer_rows
from gpt2x.parity.stages.outputs import gradient_rows, logit_rows, loss_rows
from gpt2x.parity.stages.statics import config_rows, tokenizer_rows, weight_rows
from gpt2x.parity.subject import SubjectError, import_target
from gpt2x.parity.subject.build import Source, build
from gpt2x.prompts import Prompt, read_prompts
from gpt2x.reports import console
from gpt2x.reports.heat_map import heat_map
from gpt2x.reports.validation import Report
from gpt2x.runs.tables import write_rows
from gpt2x.tasks.outcome import Outcome

_STAGES: dict[str, Callable[[Comparison], list[ParityRow]]] = {
    "config": config_rows,
    "tokenizer": tokenizer_rows,
    "weights": weight_rows,
    "layers": layer_rows,
    "logits": logit_rows,
    "loss": loss_rows,
    "gradients": gradient_rows,
    "cache": cache_rows,
    "padding": padding_rows,
    "sampling": sampling_rows,
}

_RAISES = "raises"  # the metric of the row that says what the subject's own code raised


def run(config: Config, task: ValidateTask, run_dir: Path) -> Outcome:
    """Compares stage by stage; the verdict is in Outcome.passed. UserError for what cannot be begun."""
    stages = [stage for stage in Stage if stage in task.stages]
    if config.dtype == "int8" and config.subject.target is not None:
        raise UserError("dtype=int8 is of gpt2x's own model; leave subject.target out")
    source = Source(config.subject, import_target(config.subject.target) if config.subject.target else None)
    device, dtype = find_device(config.device.name), find_dtype(config.dtype)
    outcome = Outcome(device=device)
    columns = (TextColumn("{task.description}"), BarColumn())
    with console.progress(*columns) as bar:
        step = bar.add_task("loading weights", total=len(stages) + 2)
        with outcome.timed("load"):
            checkpoint = load_checkpoint(config.model, config.weights, dtype, device)
        outcome.checkpoint = checkpoint
        bar.update(step, advance=1, description="asking the reference")
        with outcome.timed("reference"):
            record = _reference(config, task, checkpoint, stages)
        bar.update(step, advance=1)
        with outcome.timed("compare"):
            found = _compare(source, checkpoint, record, config, stages, task.reference is None, (bar, step))
        outcome.passed = not found.bad and any(row.status == "ok" for row in found.rows)
        if found.bad:
            bar.update(step, description="looking for the cause")
            with outcome.timed("diagnose"):
                _diagnose(found)
    summary = _summary(source, checkpoint, record, config.dtype, found, outcome.passed)
    write_rows(run_dir / "parity.csv", ParityRow, found.rows)
    write_rows(run_dir / "side_by_side.csv", SideBySideRow, found.side_by_side)
    picture = None
    if found.comparison is not None and any(row.stage == "layers" and row.value is not None for row in found.rows):
        picture = run_dir / "parity.png"
        heat_map(found.comparison, found.rows, picture)
    write_rows(run_dir / "summary.csv", SummaryRow, [summary])
    Report(summary, found.rows, found.side_by_side, record, found.diagnosis, stages, picture, run_dir).show()
    return outcome


@dataclass
class _Found:
    """What the stages, and then the search for a cause, have found."""

    comparison: Comparison | None = None
    """None if the subject could not even be built."""
    rows: list[ParityRow] = field(default_factory=list)
    side_by_side: list[SideBySideRow] = field(default_factory=list)
    diagnosis: Diagnosis | None = None

    @property
    def bad(self) -> list[ParityRow]:
        return [row for row in self.rows if row.bad]


def _reference(config: Config, task: ValidateTask, checkpoint: Checkpoint, stages: list[str]) -> Record:
    if task.reference is not None:
        return load_record(Path(task.reference).expanduser(), checkpoint).with_thirds()
    saved = Path(task.save_reference).expanduser() if task.save_reference is not None else None
    if saved is not None:
        check_savable(saved)
    prompt, gen_prompts = _prompts(config, task)
    encode, n_positions = checkpoint.tokenizer.encode, checkpoint.model.config.n_positions
    check_length(len(encode(prompt)), 0, n_positions, "prompt")
    wanted = set(Stage if saved else stages)
    if "generation" in wanted:
        for each in gen_prompts:
            check_length(len(encode(each.text)), config.decode.max_new_tokens, n_positions, "task.gen_prompt")
    dtype = checkpoint.model.lm_head.weight.dtype
    fits, with_gradients = _fits(checkpoint, len(encode(prompt)), 1 if config.subject.target is None else 2)
    if not with_gradients:
        wanted.discard("gradients")
    exact = torch.float64 if fits else dtype
    record = ask_oracle(checkpoint, prompt, gen_prompts, config.decode.max_new_tokens, wanted, exact)
    if saved is not None:
        save_record(record, saved)
    return record.with_thirds()


def _fits(checkpoint: Checkpoint, n_tokens: int, copies: int) -> tuple[bool, bool]:
    """Whether one float64 model and what is recorded of it fit in memory; and whether its gradients do as well.

    `copies` of the model in the dtype asked for are made beside the checkpoint.
    """
    architecture = checkpoint.model.config
    n_parameters = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    weights = 8 * n_parameters
    in_dtype = copies * n_parameters * checkpoint.model.lm_head.weight.element_size()
    # Inputs and outputs of each module, of the reference once and of the subject twice: about 130 n_embd a
    # token and layer; and a handful of logits, of the prompt and of the whole context.
    traces = 8 * n_tokens * (130 * architecture.n_layer * architecture.n_embd + 8 * architecture.vocab_size)
    traces += 8 * 3 * architecture.n_positions * architecture.vocab_size
    free = available_memory()
    return weights + in_dtype + traces < free, 2 * weights + in_dtype + traces < free


def _prompts(config: Config, task: ValidateTask) -> tuple[str, list[Prompt]]:
    prompts = read_prompts(config.prompt, None)
    if len(prompts) != 1:
        raise UserError("prompt: validate compares the logits of one prompt; give more texts as task.gen_prompt")
    return prompts[0].text, read_prompts(task.gen_prompt, None, key="task.gen_prompt")


def _compare(
    source: Source,
    checkpoint: Checkpoint,
    record: Record,
    config: Config,
    stages: list[str],
    live: bool,
    progress: tuple[Progress, TaskID],
) -> _Found:
    """Runs the stages. What the subject's own code raises ends the comparison, with a row that says so."""
    found, stage = _Found(), stages[0]
    bar, step = progress
    try:
        asked_device = checkpoint.model.lm_head.weight.device
        dtype = find_dtype(config.dtype)
        same = record.exact == dtype
        exact = build(source, checkpoint, record, record.exact, asked_device if same else torch.device("cpu"))
        subject = exact if same else build(source, checkpoint, record, dtype, asked_device)
        comparison = found.comparison = Comparison(record, checkpoint, exact, subject, config.dtype, live=live)
        for each in {exact, subject}:
            each.logits(comparison.ids(each))  # once: whether it answers for all positions is then known
        for stage in stages:
            bar.update(step, description=f"comparing {stage}")
            torch.manual_seed(0)  # of a subject that is random in eval mode: the same rows every time
            if stage == "generation":
                rows, found.side_by_side = generation_rows(comparison)
            else:
                rows = _STAGES[stage](comparison)
            found.rows += rows
            bar.advance(step)
    except SubjectError as error:
        found.rows.append(failed(stage, "subject", _RAISES, "mismatch", str(error)))
        found.rows += [skipped(later, "the subject failed before") for later in stages[stages.index(stage) + 1 :]]
    return found


def _diagnose(found: _Found) -> None:
    """Says of what is bad where and why; of what came before the subject failed, if that was bad already."""
    first = found.bad[0]
    if first.metric == _RAISES:
        found.diagnosis = Diagnosis(f"{first.stage}: {first.site}", first, first.note)
        return
    assert found.comparison is not None
    try:
        found.diagnosis, more = diagnose(found.comparison, [row for row in found.rows if row.metric != _RAISES])
        found.rows += more
    except SubjectError as error:
        found.diagnosis = Diagnosis(f"{first.stage}: {first.site}", first, f"unknown: {error}")


def _summary(
    source: Source, checkpoint: Checkpoint, record: Record, dtype: str, found: _Found, passed: bool
) -> SummaryRow:
    logits = {(row.mode, row.metric): row.value for row in found.rows if row.stage == "logits"}
    exact = record.facts.exact
    return SummaryRow(
        model=checkpoint.name,
        weights=checkpoint.weights,
        subject=source.name,
        device=checkpoint.model.lm_head.weight.device.type,
        dtype=dtype,
        parameters_subject=found.comparison.subject.n_parameters if found.comparison else 0,
        parameters_reference=record.facts.n_parameters,
        verdict="pass" if passed else "fail",
        first_divergence=found.diagnosis.site if found.diagnosis else "",
        probable_cause=found.diagnosis.cause if found.diagnosis else "",
        max_abs_logit_difference=logits.get((dtype, "max_abs_difference")),
        mean_kl=logits.get((dtype, "mean_kl")),
        top1_agreement=logits.get((dtype, "top1_agreement")),
        generations_matched=sum(row.verdict == "same" for row in found.side_by_side),
        generations_total=len(found.side_by_side),
        relative_difference=logits.get((exact, "relative_difference")) if exact == "float64" else None,
        error_ratio=logits.get((dtype, "error_ratio")),
    )
