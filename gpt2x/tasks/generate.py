"""task=generate: prompts x samples, to the console and to generations.csv."""

from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from gpt2x import console, runtime
from gpt2x.checkpoints import Checkpoint, load_checkpoint
from gpt2x.decoding.generate import Completion, check_length, generate
from gpt2x.decoding.sampler import Sampler
from gpt2x.prompts import Prompt, read_prompts
from gpt2x.results import GenerationRow, write_rows
from gpt2x.runtime import Outcome
from gpt2x.schema import Config


@dataclass(frozen=True)
class _Sample:
    """One row of generations.csv to be."""

    prompt: Prompt
    ids: list[int]
    sample: int


def run(config: Config, run_dir: Path) -> Outcome:
    """Continues every prompt num_samples times; UserError before any work if one of them cannot be."""
    prompts = read_prompts(config.prompt, config.prompts_file)
    device = runtime.find_device(config.device.name)
    outcome = Outcome(device=device)
    with outcome.timed("load"):
        checkpoint = load_checkpoint(config.model, config.weights, runtime.find_dtype(config.dtype), device)
    outcome.checkpoint = checkpoint
    samples = []
    for prompt in prompts:
        ids = checkpoint.tokenizer.encode(prompt.text)
        what = "prompt" if len(prompts) == 1 else f"prompt {prompt.id!r}"
        check_length(len(ids), config.decode.max_new_tokens, checkpoint.model.config.n_positions, what)
        samples += [_Sample(prompt, ids, index) for index in range(config.decode.num_samples)]
    with outcome.timed("generate"):
        completions = (
            _stream(config, checkpoint, samples[0]) if len(samples) == 1 else _batches(config, checkpoint, samples)
        )
    rows = [_row(config, checkpoint, *pair) for pair in zip(samples, completions, strict=True)]
    write_rows(run_dir / "generations.csv", GenerationRow, rows)
    if len(samples) > 1:
        for row in rows:
            console.out.rule(f"prompt {row.prompt_id}, sample {row.sample}", align="left", style="dim")
            console.out.print(Text.assemble((row.prompt, "bold"), row.completion), soft_wrap=True)
    return outcome


def _stream(config: Config, checkpoint: Checkpoint, sample: _Sample) -> list[Completion]:
    """A single sample, its text on the console as it comes."""
    console.out.print(Text(sample.prompt.text, "bold"), end="", soft_wrap=True)
    stream = checkpoint.tokenizer.stream()
    shown = ""

    def show(token: int) -> None:
        nonlocal shown
        piece = stream(token)
        shown += piece
        console.out.print(Text(piece), end="", soft_wrap=True)

    completions = _generate(config, checkpoint, [sample], show)
    rest = _text(checkpoint, completions[0])[len(shown) :]  # half a character, if the last token left one
    console.out.print(Text(rest), soft_wrap=True)
    return completions


def _batches(config: Config, checkpoint: Checkpoint, samples: list[_Sample]) -> list[Completion]:
    """All samples, in batches of like length, back in the order given."""
    order = sorted(range(len(samples)), key=lambda i: len(samples[i].ids))
    completions: dict[int, Completion] = {}
    columns = (TextColumn("generate"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with console.progress(*columns) as bar:
        task = bar.add_task("generate", total=len(samples))
        batch_size = 8 if config.batch_size == "auto" else config.batch_size
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            done = _generate(config, checkpoint, [samples[i] for i in batch])
            completions |= dict(zip(batch, done, strict=True))
            bar.advance(task, len(batch))
    return [completions[i] for i in range(len(samples))]


def _generate(
    config: Config, checkpoint: Checkpoint, samples: list[_Sample], on_token=lambda token: None
) -> list[Completion]:
    keys = [(sample.prompt.text, sample.sample) for sample in samples]
    return generate(
        checkpoint.model,
        [sample.ids for sample in samples],
        Sampler(config.decode, config.seed, keys),
        config.decode.max_new_tokens,
        checkpoint.tokenizer.eos_id,
        on_token,
    )


def _text(checkpoint: Checkpoint, completion: Completion) -> str:
    ids = completion.ids[:-1] if completion.finish_reason == "eos" else completion.ids
    return checkpoint.tokenizer.decode(ids)


def _row(config: Config, checkpoint: Checkpoint, sample: _Sample, completion: Completion) -> GenerationRow:
    return GenerationRow(
        prompt_id=sample.prompt.id,
        sample=sample.sample,
        prompt=sample.prompt.text,
        completion=_text(checkpoint, completion),
        n_prompt_tokens=len(sample.ids),
        n_new_tokens=len(completion.ids),
        finish_reason=completion.finish_reason,
        logprob=completion.logprob,
        model=checkpoint.name,
        weights=checkpoint.weights,
        greedy=config.decode.greedy,
        temperature=config.decode.temperature,
        top_k=config.decode.top_k,
        top_p=config.decode.top_p,
        seed=config.seed,
    )
