"""task=generate: prompts x samples, to the console and to generations.csv."""

import time
from pathlib import Path

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table
from rich.text import Text

from gpt2x.checkpoints.load import Checkpoint, load_checkpoint
from gpt2x.config.schema import Config
from gpt2x.config.tasks.generate import GenerateTask
from gpt2x.decoding.generate import check_length
from gpt2x.decoding.rows import GenerationRow
from gpt2x.decoding.run import GENERATIONS, Job, Sample
from gpt2x.device import find_device, find_dtype
from gpt2x.paths import shown
from gpt2x.prompts import Prompt, read_prompts
from gpt2x.reports import console
from gpt2x.tasks.outcome import Outcome

_SHOWN = 20  # samples in the table on the console


def run(config: Config, task: GenerateTask, run_dir: Path) -> Outcome:
    """Continues every prompt num_samples times; UserError before any work if one of them cannot be.

    A run that was killed goes on from its folder, and ends in the same bytes.
    """
    prompts = read_prompts(config.prompt, config.prompts_file)
    device = find_device(config.device.name)
    outcome = Outcome(device=device)
    with outcome.timed("load"):
        checkpoint = load_checkpoint(config.model, config.weights, find_dtype(config.dtype), device)
    outcome.checkpoint = checkpoint
    job = Job(config, checkpoint, _samples(config, checkpoint, prompts), run_dir)
    with outcome.timed("generate"):
        if len(job.samples) == 1:
            _stream(job)
        else:
            _run(job)
    return outcome


def _samples(config: Config, checkpoint: Checkpoint, prompts: list[Prompt]) -> list[Sample]:
    samples = []
    crop = config.decode.on_overflow == "crop"
    n_positions = checkpoint.model.config.n_positions
    for prompt in prompts:
        ids = checkpoint.tokenizer.encode(prompt.text)
        what = "prompt" if len(prompts) == 1 else f"prompt {prompt.id!r}"
        if not ids or not crop:
            with_beams = config.decode.num_beams > 1
            otherwise = "" if with_beams else "; or keep the last tokens that fit, with decode.on_overflow=crop"
            check_length(len(ids), config.decode.max_new_tokens, n_positions, what, otherwise)
        samples += [Sample(prompt, ids, index) for index in range(config.decode.num_samples)]
    return samples


def _stream(job: Job) -> None:
    """A single sample, its text on the console as it comes."""
    _write(job.samples[0].prompt.text, Style(bold=True))
    tokenizer = job.checkpoint.tokenizer
    stream, text, printed = tokenizer.stream(), "", 0

    def show(request: int, token: int) -> None:
        nonlocal text, printed
        if token == tokenizer.eos_id:
            return
        text += stream(token)
        visible = job.stop.visible(text)
        _write(text[printed:visible])
        printed = visible

    (row,) = job.run(show)
    _write(row.completion[printed:] + "\n")  # half a character, if the last token left one


def _write(text: str, style: Style | None = None) -> None:
    """A piece of text as it is: rich's own Text has no control characters, and no tabs."""
    console.out.print(Segments([Segment(text, style)]), soft_wrap=True)


def _run(job: Job) -> None:
    """Many samples: a progress bar and then a table; off a terminal, no more than where the rows are."""
    most, samples = job.decode.max_new_tokens, len(job.samples)
    columns = (
        TextColumn("{task.fields[done]}/{task.fields[samples]} samples"),
        BarColumn(),
        TextColumn("{task.fields[speed]:,.0f} tokens/s"),
        TimeRemainingColumn(),
    )
    n_tokens = in_work = 0  # of this run, and of them those of texts that have not ended
    start = time.perf_counter()
    with console.progress(*columns) as bar:
        task = bar.add_task("generate", total=samples, completed=job.done, done=job.done, samples=samples, speed=0.0)

        def count(request: int, token: int) -> None:
            nonlocal n_tokens, in_work
            n_tokens, in_work = n_tokens + 1, in_work + 1
            speed = n_tokens / (time.perf_counter() - start)
            bar.update(task, completed=job.done + in_work / most, done=job.done, speed=speed)

        def end(row: GenerationRow) -> None:
            nonlocal in_work
            in_work -= row.n_new_tokens

        rows = job.run(count, end)
    seconds = time.perf_counter() - start
    if console.out.is_terminal:
        console.out.print(_table(rows))
    console.out.print(
        f"{samples} samples in {shown(job.run_dir / GENERATIONS)}; {n_tokens:,} new tokens in {seconds:.1f} s, "
        f"{n_tokens / seconds:,.0f} a second",
        soft_wrap=True,
    )


def _table(rows: list[GenerationRow]) -> Table:
    table = Table("prompt", "sample", "text", "tokens", "ended by", "logprob")
    for row in rows[:_SHOWN]:
        text = Text.assemble((row.prompt, "bold"), row.completion)
        cells = (str(row.sample), text, str(row.n_new_tokens), row.finish_reason, f"{row.logprob:.1f}")
        table.add_row(Text(row.prompt_id), *cells)
    if len(rows) > _SHOWN:
        table.caption = f"and {len(rows) - _SHOWN} more"
    return table
