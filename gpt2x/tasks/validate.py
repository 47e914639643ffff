"""task=validate: is this GPT-2 the real GPT-2; if not, which module is wrong, and why?"""

from pathlib import Path

from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.schema import Config
from gpt2x.config.tasks.validate import Stage, ValidateTask
from gpt2x.device import find_device, find_dtype
from gpt2x.errors import UserError
from gpt2x.parity.record_source import OracleRecord, SavedRecord
from gpt2x.parity.rows import ParityRow, SideBySideRow, SummaryRow, parity_row
from gpt2x.parity.subject import import_target
from gpt2x.parity.subject.build import Source
from gpt2x.parity.validation import validate
from gpt2x.paths import expanded
from gpt2x.prompts import read_prompts
from gpt2x.reports.heat_map import has_heat_map, heat_map
from gpt2x.reports.validation import progress_bar, show
from gpt2x.runs.tables import write_rows
from gpt2x.tasks.outcome import Outcome


def run(config: Config, task: ValidateTask, run_dir: Path) -> Outcome:
    """Compares stage by stage; the verdict is in Outcome.passed. Raises UserError if the validation cannot begin."""
    if config.dtype == "int8" and config.subject.target is not None:
        raise UserError("dtype=int8 is only for gpt2x's own model; leave subject.target out")
    source = Source(config.subject, import_target(config.subject.target) if config.subject.target else None)
    device, dtype = find_device(config.device.name), find_dtype(config.dtype)
    outcome = Outcome(device=device)
    with progress_bar(len(task.stages) + 2) as step:  # loading and the reference, then the stages
        step("loading weights")
        with outcome.timed("load"):
            checkpoint = outcome.checkpoint = load_checkpoint(config.model, config.weights, dtype, device)
        stages = [Stage(name) for name in task.stages]
        found = validate(checkpoint, source, _reference(config, task), dtype=config.dtype, stages=stages, progress=step)
    outcome.passed = found.passed
    outcome.timings |= found.seconds
    write_rows(run_dir / "parity.csv", ParityRow, map(parity_row, found.checks))
    write_rows(run_dir / "side_by_side.csv", SideBySideRow, found.side_by_side)
    picture = run_dir / "parity.png" if has_heat_map(found) else None
    if picture is not None:
        heat_map(found, picture)
    write_rows(run_dir / "summary.csv", SummaryRow, [found.summary()])
    show(found, picture)
    return outcome


def _reference(config: Config, task: ValidateTask) -> OracleRecord | SavedRecord:
    if task.reference is not None:
        return SavedRecord(expanded(task.reference, "task.reference"))
    prompts = read_prompts(config.prompt, prompt_file=config.prompt_file)
    if len(prompts) != 1:
        raise UserError("prompt: validate compares the logits of one prompt; give more texts as task.gen_prompt")
    save_to = expanded(task.save_reference, "task.save_reference") if task.save_reference is not None else None
    gen_prompts = read_prompts(task.gen_prompt, key="task.gen_prompt")
    return OracleRecord(prompts[0].text, gen_prompts, config.decode.max_new_tokens, save_to)
