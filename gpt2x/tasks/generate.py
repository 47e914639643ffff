"""task=generate: continues prompts, and writes generations.csv and, with decode.logprobs, tokens.csv."""

from itertools import chain
from pathlib import Path

from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.schema import Config
from gpt2x.config.tasks.generate import GenerateTask
from gpt2x.decoding.blocks import prompts_per_block, shard_of
from gpt2x.decoding.parts import Plan
from gpt2x.decoding.rows import GenerationRow, TokenRow
from gpt2x.decoding.run import Generated, OnProgress, generate_samples
from gpt2x.decoding.samples import check_fitting, samples_of
from gpt2x.decoding.scores import logprob, score
from gpt2x.device import find_device, find_dtype
from gpt2x.errors import UserError
from gpt2x.prompts import Prompt, extra_columns, read_prompts
from gpt2x.reports.console import show_log
from gpt2x.reports.generation import Stream, progress_bar, show
from gpt2x.runs.journal import Journal
from gpt2x.runs.tables import ADDED_BY_COLLECTING, NO_EXTRA, ExtraColumns, columns_of
from gpt2x.tasks.outcome import Outcome

GENERATIONS, TOKENS = "generations.csv", "tokens.csv"


def run(config: Config, task: GenerateTask, run_dir: Path) -> Outcome:
    """Continues every prompt num_samples times.

    A run that was killed continues in its folder, and its tables end in the same bytes.
    Raises UserError before any work if one of the prompts cannot be continued.
    """
    show_log()
    decode, shard = config.decode, config.shard
    prompts = read_prompts(config.prompt, config.prompts_file, config.prompt_file, prompt_id=config.prompt_id)
    columns = _extra_columns(prompts, config.prompts_file)
    own = shard_of(len(prompts), prompts_per_block(config.batch_size, decode.num_samples), shard)
    device = find_device(config.device.name)
    outcome = Outcome(device=device)
    with outcome.timed("load"):
        checkpoint = load_checkpoint(config.model, config.weights, find_dtype(config.dtype), device)
    outcome.loaded(checkpoint, run_dir)
    check_fitting(checkpoint, chain(prompts[: own.start], prompts[own.stop :]), decode)
    prompts = prompts[own]
    samples = samples_of(checkpoint, prompts, decode)
    with_tokens = decode.logprobs is not None
    tables: dict[str, type] = ({TOKENS: TokenRow} if with_tokens else {}) | {GENERATIONS: GenerationRow}
    journal = Journal(run_dir, tables, Plan, {GenerationRow: _values(columns, prompts)})

    def generate(on_progress: OnProgress) -> Generated:
        found = generate_samples(
            checkpoint, samples, decode, config.seed, config.batch_size, journal, on_progress, config.deterministic
        )
        journal.finish({GenerationRow: found.generations, TokenRow: found.tokens})
        return found

    with outcome.timed("generate"):
        if len(samples) == shard.count == 1:
            stream = Stream(samples[0].prompt.text, checkpoint.tokenizer, decode.stop)
            generated = generate(stream.update)
            stream.end(generated.generations[0])
            outcome.prints_text_alone = True
        else:
            with progress_bar(len(samples), decode.max_new_tokens) as on_progress:
                generated = generate(on_progress)
            show(generated)
    rows = generated.generations
    outcome.numbers = {"logprob": logprob(rows), task.score: score(task.score, rows, checkpoint.tokenizer.encode)}
    if not with_tokens:
        (run_dir / TOKENS).unlink(missing_ok=True)  # a file that an earlier run left in this folder
    return outcome


def _extra_columns(prompts: list[Prompt], prompts_file: str | None) -> list[str]:
    """The other columns of all prompts in the prompts_file, which the table of each shard has.

    Raises UserError if one has the name of a column of generations.csv.
    """
    names = extra_columns(prompts)
    taken = next((name for name in names if name in (*columns_of(GenerationRow), *ADDED_BY_COLLECTING)), None)
    if taken is not None:
        raise UserError(
            f"prompts_file={prompts_file}: rename the column {taken!r}, as {GENERATIONS} has one of its own"
        )
    return names


def _values(names: list[str], prompts: list[Prompt]) -> ExtraColumns:
    """These columns for the rows of the prompts."""
    if not names:
        return NO_EXTRA
    of_prompt = {prompt.id: [prompt.extra.get(name, "") for name in names] for prompt in prompts}
    return ExtraColumns(tuple(names), lambda row: of_prompt[row.prompt_id])
