"""task=validate: is this GPT-2 the real GPT-2; if not, which module is wrong, and why?"""

from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from gpt2x import console, runtime
from gpt2x.checkpoints import Checkpoint, load_checkpoint
from gpt2x.decoding.generate import check_length
from gpt2x.errors import UserError
from gpt2x.memory import available_memory
from gpt2x.parity.build import Source, build
from gpt2x.parity.comparison import Comparison, failed, skipped
from gpt2x.parity.decoding import cache_rows, generation_rows, padding_rows, sampling_rows
from gpt2x.parity.diagnose import Diagnosis, diagnose
from gpt2x.parity.heatmap import heat_map
from gpt2x.parity.layers import layer_rows
from gpt2x.parity.outputs import gradient_rows, logit_rows, loss_rows
from gpt2x.parity.record import Record, load_record, record_reference, save_record
from gpt2x.parity.report import Report
from gpt2x.parity.statics import config_rows, tokenizer_rows, weight_rows
from gpt2x.prompts import Prompt, read_prompts
from gpt2x.results import ParityRow, SideBySideRow, SummaryRow, write_rows
from gpt2x.runtime import Outcome
from gpt2x.schema import STAGES, Config
from gpt2x.subject import SubjectError, import_target

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


def run(config: Config, run_dir: Path) -> Outcome:
    """Compares stage by stage; the verdict is in Outcome.passed. UserError for what cannot be begun."""
    stages = [stage for stage in STAGES if stage in config.task.stages]
    if not stages:
        raise UserError(f"task.stages is empty: name some of {', '.join(STAGES)}")
    source = Source(config.subject, import_target(config.subject.target) if config.subject.target else None)
    device, dtype = runtime.find_device(config.device.name), runtime.find_dtype(config.dtype)
    outcome = Outcome(device=device)
    columns = (TextColumn("{task.description}"), BarColumn())
    with console.progress(*columns) as bar:
        step = bar.add_task("loading weights", total=len(stages) + 2)
        with outcome.timed("load"):
            checkpoint = load_checkpoint(config.model, config.weights, dtype, device)
        outcome.checkpoint = checkpoint
        bar.update(step, advance=1, description="asking the reference")
        with outcome.timed("reference"):
            record = _reference(config, checkpoint, stages)
        bar.update(step, advance=1)
        with outcome.timed("compare"):
            comparison, rows, side_by_side = _compare(config, source, checkpoint, record, stages, (bar, step))
            bad = any(row.status not in ("ok", "skipped") for row in rows)
            outcome.passed = not bad and any(row.status == "ok" for row in rows)
        diagnosis = None
        if bad:
            bar.update(step, description="looking for the cause")
            with outcome.timed("diagnose"):
                diagnosis, more = _diagnose(comparison, rows)
                rows += more
    summary = _summary(config, source, checkpoint, record, rows, side_by_side, comparison, diagnosis, outcome.passed)
    write_rows(run_dir / "parity.csv", ParityRow, rows)
    write_rows(run_dir / "side_by_side.csv", SideBySideRow, side_by_side)
    picture = None
    if comparison is not None and any(row.stage == "layers" and row.value is not None for row in rows):
        picture = run_dir / "parity.png"
        heat_map(comparison, rows, picture)
    write_rows(run_dir / "summary.csv", SummaryRow, [summary])
    Report(summary, rows, side_by_side, record, diagnosis, stages, picture, run_dir).show()
    return outcome


def _reference(config: Config, checkpoint: Checkpoint, stages: list[str]) -> Record:
    if config.task.reference is not None:
        return load_record(Path(config.task.reference).expanduser(), checkpoint).with_thirds()
    prompt, gen_prompts = _prompts(config)
    encode, n_positions = checkpoint.tokenizer.encode, checkpoint.model.config.n_positions
    check_length(len(encode(prompt)), 0, n_positions, "prompt")
    if "generation" in stages:
        for each in gen_prompts:
            check_length(len(encode(each.text)), config.decode.max_new_tokens, n_positions, "gen_prompt")
    wanted = set(STAGES if config.task.save_reference else stages)
    dtype = runtime.find_dtype(config.dtype)
    fits, with_gradients = _fits(checkpoint, len(encode(prompt)), 1 if config.subject.target is None else 2)
    if not with_gradients:
        wanted.discard("gradients")
    exact = torch.float64 if fits else dtype
    record = record_reference(checkpoint, prompt, gen_prompts, config.decode.max_new_tokens, wanted, exact)
    if config.task.save_reference is not None:
        save_record(record, Path(config.task.save_reference).expanduser())
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


def _prompts(config: Config) -> tuple[str, list[Prompt]]:
    if config.prompts_file is not None:
        raise UserError("prompts_file is for task=generate; validate takes prompt and gen_prompt")
    key = config.decode.sampling_key()
    if key is not None:
        raise UserError(f"decode.{key} is for task=generate; validate compares greedy text")
    prompts = read_prompts(config.prompt, None)
    if len(prompts) != 1:
        raise UserError("prompt: validate compares the logits of one prompt; give more texts as gen_prompt")
    return prompts[0].text, read_prompts(config.gen_prompt, None, key="gen_prompt")


def _compare(
    config: Config,
    source: Source,
    checkpoint: Checkpoint,
    record: Record,
    stages: list[str],
    progress: tuple[Progress, TaskID],
) -> tuple[Comparison | None, list[ParityRow], list[SideBySideRow]]:
    """Runs the stages. What the subject's own code raises ends the comparison, with a row that says so."""
    rows: list[ParityRow] = []
    side_by_side: list[SideBySideRow] = []
    comparison = None
    stage = stages[0]
    bar, step = progress
    try:
        asked_device = checkpoint.model.lm_head.weight.device
        same = record.exact == record.dtype
        exact = build(source, checkpoint, record, record.exact, asked_device if same else torch.device("cpu"))
        subject = exact if same else build(source, checkpoint, record, record.dtype, asked_device)
        comparison = Comparison(record, checkpoint, exact, subject, live=config.task.reference is None)
        for each in {exact, subject}:
            each.logits(comparison.ids(each))  # once: whether it answers for all positions is then known
        for stage in stages:
            bar.update(step, description=f"comparing {stage}")
            torch.manual_seed(0)  # of a subject that is random in eval mode: the same rows every time
            if stage == "generation":
                more, side_by_side = generation_rows(comparison)
                rows += more
            else:
                rows += _STAGES[stage](comparison)
            bar.advance(step)
    except SubjectError as error:
        rows.append(failed(stage, "subject", "raises", "mismatch", str(error)))
        rows += [skipped(later, "the subject failed before") for later in stages[stages.index(stage) + 1 :]]
    return comparison, rows, side_by_side


def _diagnose(comparison: Comparison | None, rows: list[ParityRow]) -> tuple[Diagnosis, list[ParityRow]]:
    raised = next((row for row in rows if row.metric == "raises"), None)
    before = rows[: rows.index(raised)] if raised is not None else rows
    if raised is not None and all(row.status in ("ok", "skipped") for row in before):
        return Diagnosis(f"{raised.stage}: subject", raised, raised.note), []
    assert comparison is not None
    return diagnose(comparison, before)


def _summary(
    config: Config,
    source: Source,
    checkpoint: Checkpoint,
    record: Record,
    rows: list[ParityRow],
    side_by_side: list[SideBySideRow],
    comparison: Comparison | None,
    diagnosis: Diagnosis | None,
    passed: bool,
) -> SummaryRow:
    logits = {(row.mode, row.metric): row.value for row in rows if row.stage == "logits"}
    dtype, exact = record.facts.dtype, record.facts.exact
    return SummaryRow(
        model=checkpoint.name,
        weights=checkpoint.weights,
        subject=source.name,
        device=str(checkpoint.model.lm_head.weight.device.type),
        dtype=config.dtype,
        parameters_subject=comparison.subject.n_parameters if comparison else 0,
        parameters_reference=record.facts.n_parameters,
        verdict="pass" if passed else "fail",
        first_divergence=diagnosis.site if diagnosis else "",
        probable_cause=diagnosis.cause if diagnosis else "",
        max_abs_logit_difference=logits.get((dtype, "max_abs_difference")),
        mean_kl=logits.get((dtype, "mean_kl")),
        top1_agreement=logits.get((dtype, "top1_agreement")),
        generations_matched=sum(row.verdict == "same" for row in side_by_side),
        generations_total=len(side_by_side),
        relative_difference=logits.get((exact, "relative_difference")) if exact == "float64" else None,
        error_ratio=logits.get((dtype, "error_ratio")),
    )
