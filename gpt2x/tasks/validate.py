"""task=validate: is this GPT-2 the real GPT-2; if not, which module is wrong, and why?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.checkpoints.sizes import ARCHITECTURE
from gpt2x.config.schema import Config
from gpt2x.config.subject import SubjectConfig
from gpt2x.config.tasks.validate import Stage, ValidateTask
from gpt2x.config.weights import WeightsConfig
from gpt2x.device import find_device, find_dtype
from gpt2x.errors import UserError
from gpt2x.parity.duration import estimated_seconds
from gpt2x.parity.record_source import KnownRecord, record_source
from gpt2x.parity.recorded.recording import Recording, read_recording
from gpt2x.parity.recorded.validation import validate_recording
from gpt2x.parity.rows import CauseRow, ParityRow, SideBySideRow, SummaryRow, parity_row
from gpt2x.parity.source import Source, named_target
from gpt2x.parity.subject.constructing.make import FixedSizeError
from gpt2x.parity.suggesting.patch import Suggestions
from gpt2x.parity.suggesting.suggest import suggest
from gpt2x.parity.validation import Validation, validate
from gpt2x.paths import write_whole
from gpt2x.prompts import Prompt, read_prompts
from gpt2x.reports.fixes import fixes
from gpt2x.reports.heat_map import has_heat_map, save_heat_map
from gpt2x.reports.printed import show_printed
from gpt2x.reports.validation import progress_bar, show, tell_duration
from gpt2x.runs.tables import write_rows
from gpt2x.tasks.outcome import Outcome

PATCH = "suggestion.patch"
NUMBERS = ("relative_difference", "error_ratio", "max_abs_logit_difference", "mean_kl", "top1_agreement")


def run(config: Config, task: ValidateTask, run_dir: Path) -> Outcome:
    """Compares stage by stage; the verdict is in Outcome.passed. Raises UserError if the validation cannot begin."""
    if task.suggest and (config.subject.target is None or config.subject.kind == "recorded"):
        raise UserError("task.suggest=true changes code of yours: name it by subject.target=FILE.py:NAME")
    prompts = read_prompts(config.prompt, prompt_file=config.prompt_file)
    with _subject(config.subject) as subject:
        outcome, found, suggestions = _compared(config, task, prompts, subject, run_dir)
    outcome.passed = found.passed
    outcome.timings |= found.seconds
    write_rows(run_dir / "parity.csv", ParityRow, map(parity_row, found.checks))
    write_rows(run_dir / "causes.csv", CauseRow, suggestions.placed(found.causes))
    write_rows(run_dir / "side_by_side.csv", SideBySideRow, found.side_by_side)
    picture = run_dir / "parity.png" if has_heat_map(found) else None
    if picture is not None:
        save_heat_map(found, picture)
    summary = found.summary()
    outcome.numbers = {name: getattr(summary, name) for name in NUMBERS}
    write_rows(run_dir / "summary.csv", SummaryRow, [summary])
    if suggestions.verified:
        patch = suggestions.patch.encode()
        write_whole(run_dir / PATCH, lambda temporary: temporary.write_bytes(patch))
    show(found, picture, fixes(found, suggestions, run_dir / PATCH))
    return outcome


def _compared(
    config: Config, task: ValidateTask, prompts: list[Prompt], subject: Source | Recording, run_dir: Path
) -> tuple[Outcome, Validation, Suggestions]:
    device, dtype = find_device(config.device.name), find_dtype(config.dtype)
    outcome = Outcome(device=device)
    with progress_bar(len(task.stages) + 2) as step:  # loading and the reference, then the stages
        step("loading weights")
        with outcome.timed("load"):
            checkpoint = load_checkpoint(config.model, config.weights, dtype, device, measure=True)
        outcome.loaded(checkpoint, run_dir)
        stages = [Stage(name) for name in task.stages]
        if isinstance(subject, Recording):
            reference = record_source(prompts, config.decode.max_new_tokens, task, subject.ids)
            found = validate_recording(checkpoint, subject, reference, stages=stages, progress=step)
            return outcome, found, Suggestions()
        subject.check()
        reference = record_source(prompts, config.decode.max_new_tokens, task)
        if config.dtype != "int8":
            most = checkpoint.model.config.n_positions
            beginning = prompts[0].text[: 8 * most]  # a prompt that is too long is refused later, and not encoded here
            n_tokens = min(most, len(checkpoint.tokenizer.encode(beginning)))
            tell_duration(estimated_seconds(checkpoint.model, n_tokens), len(stages) == len(Stage))
        try:
            found = validate(checkpoint, subject, reference, dtype=config.dtype, stages=stages, progress=step)
        except FixedSizeError as error:
            if error.own is None or not reference.live or config.subject.weights == "own":
                raise
            step("loading random weights of the subject's size")
            checkpoint = outcome.loaded(_random_checkpoint(config, error, dtype, device), run_dir)
            found = validate(checkpoint, subject, reference, dtype=config.dtype, stages=stages, progress=step)
            found.notes.append("its code fixes its size, so it was compared at that size, with random weights")
        known = KnownRecord(found.record, reference.live)

        def again(source: Source, stages: list[Stage]) -> Validation:
            return validate(checkpoint, source, known, dtype=config.dtype, stages=stages)

        if task.suggest and not found.passed:
            step("trying changes that may mend it")
        with outcome.timed("suggest"):
            suggestions = suggest(subject, found, again, verify=task.suggest)
        if not suggestions.found:
            del outcome.timings["suggest"]
    return outcome, found, suggestions


@contextmanager
def _subject(asked: SubjectConfig) -> Iterator[Source | Recording]:
    """Raises UserError if the target cannot be imported, or the recording cannot be read.

    What the subject's code prints is shown at the end, on stderr.
    """
    if asked.kind == "recorded":
        yield read_recording(str(asked.target), asked.rename)
        return
    source = Source(asked, named_target(asked) if asked.target is not None else None)
    try:
        yield source
    finally:
        show_printed(source.close())


def _random_checkpoint(config: Config, fixed: FixedSizeError, dtype: torch.dtype, device: torch.device) -> Checkpoint:
    """Random weights of a size that a subject insists on. Raises UserError if there is no tokenizer for them."""
    model = replace(config.model, **{name: getattr(fixed.own, name) for name in ARCHITECTURE})
    try:
        return load_checkpoint(model, WeightsConfig("random", seed=config.weights.seed), dtype, device)
    except UserError as error:
        raise UserError(f"{fixed}; random weights of that size cannot be used: {error}") from None
