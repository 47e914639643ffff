"""All samples of a run: in batches that memory allows, written down as they end, taken up again after a kill."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.config.schema import Config
from gpt2x.decoding.batches import automatic_batch_size, is_out_of_memory
from gpt2x.decoding.filters.processors import process_logits
from gpt2x.decoding.generate import Completion, Request, generate
from gpt2x.decoding.rows import GenerationRow, TokenRow
from gpt2x.decoding.sampler import Sampler
from gpt2x.decoding.search.beams import beam_search
from gpt2x.decoding.stop import StopStrings
from gpt2x.errors import DoesNotFitError
from gpt2x.prompts import Prompt
from gpt2x.runs.journal import Journal

GENERATIONS, TOKENS = "generations.csv", "tokens.csv"
_ROUNDS = 2  # batches to a part


@dataclass(frozen=True)
class Sample:
    """One row of generations.csv to be."""

    prompt: Prompt
    ids: list[int]
    index: int

    @property
    def key(self) -> tuple[str, int]:
        return self.prompt.id, self.index


class Job:
    """The samples of a run folder.

    They are worked off from the shortest prompt to the longest, in parts of some batches. How a text is
    rounded depends on which others are beside it, so a part that a kill left unfinished is begun anew:
    the same texts then meet as in a run that was not killed, and the tables end in the same bytes.
    """

    def __init__(self, config: Config, checkpoint: Checkpoint, samples: list[Sample], run_dir: Path) -> None:
        """UserError if the folder holds a run that was begun with other settings."""
        self.config, self.decode, self.checkpoint = config, config.decode, checkpoint
        self.samples, self.run_dir = samples, run_dir
        self.sampler = Sampler(self.decode, config.seed, checkpoint.tokenizer.eos_id)
        self.stop = StopStrings(self.decode.stop, checkpoint.tokenizer.decode)
        tables: dict[str, type] = {} if self.decode.logprobs is None else {TOKENS: TokenRow}
        self.journal = Journal(run_dir, tables | {GENERATIONS: GenerationRow}, self._settings())
        self.size, self.parts = self._plan()

    @property
    def done(self) -> int:
        """Samples that are complete."""
        return len(self.journal.rows[GENERATIONS])

    def run(
        self,
        on_token: Callable[[int, int], None] = lambda request, token: None,
        on_end: Callable[[GenerationRow], None] = lambda row: None,
    ) -> list[GenerationRow]:
        """Completes what is not complete; returns all rows in the order of the samples.

        on_token is called for each new token, as by generate, on_end for each new row. A part for which memory is
        short is begun anew with half the batch size. DoesNotFitError if not even one text at a time fits.
        """
        for part in self.parts:
            before = {name: len(rows) for name, rows in self.journal.rows.items()}
            while True:
                try:
                    for sample, completion in self._complete(part, on_token):
                        rows = self._rows(sample, completion)
                        self.journal.append(rows)
                        on_end(rows[GENERATIONS][0])
                    break
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    n_rows = min(self.size, len(part) * self.decode.num_beams)
                    if n_rows <= self.decode.num_beams:
                        fix = "decode.num_beams" if self.decode.num_beams > 1 else "decode.max_new_tokens"
                        raise DoesNotFitError(
                            f"{self.checkpoint.name}: not even one text at a time fits in memory; use a smaller {fix}"
                        ) from None
                self.size = n_rows // 2
                rows = {name: rows[: before[name]] for name, rows in self.journal.rows.items()}
                self.journal.rewrite(rows, batch_size=self.size)
        return self._finish()

    def _plan(self) -> tuple[int, list[list[Sample]]]:
        """The batch size, and the parts that are to do; of the journal, only rows of the others are kept."""
        order = sorted(self.samples, key=lambda sample: len(sample.ids))
        longest = min(len(order[-1].ids) + self.decode.max_new_tokens, self.checkpoint.model.config.n_positions)
        asked = self.config.batch_size
        size = self.journal.facts["batch_size"] if self.journal.facts.get("asked") == asked else asked
        if size == "auto":
            size = automatic_batch_size(self.checkpoint.model, longest)
        length = self.journal.facts.get("part", _ROUNDS * size)
        length += -length % self.decode.num_samples  # the samples of one prompt come from the same beams
        parts = [order[start : start + length] for start in range(0, len(order), length)]
        done = self._written()
        to_do = [part for part in parts if not done.issuperset(sample.key for sample in part)]
        finished = {sample.key for sample in order} - {sample.key for part in to_do for sample in part}
        rows = {name: [row for row in rows if _key(row) in finished] for name, rows in self.journal.rows.items()}
        self.journal.rewrite(rows, asked=asked, batch_size=size, part=length)
        return size, to_do

    def _written(self) -> set[tuple[str, int]]:
        """Keys of the samples with all their rows: a machine that goes down may lose the end of one table alone."""
        n_new = {_key(row): row.n_new_tokens for row in self.journal.rows[GENERATIONS]}
        if self.decode.logprobs is None:
            return set(n_new)
        tokens = self.journal.rows[TOKENS]
        steps = Counter(_key(row) for row in tokens if row.chosen)
        last = {_key(row): row.rank for row in tokens}
        ranks = min(self.decode.logprobs, self.checkpoint.model.config.vocab_size)
        return {key for key, n in n_new.items() if steps[key] == n and last[key] >= ranks}

    def _complete(
        self, samples: list[Sample], on_token: Callable[[int, int], None]
    ) -> Iterator[tuple[Sample, Completion]]:
        decode, model, eos_id = self.decode, self.checkpoint.model, self.checkpoint.tokenizer.eos_id
        if decode.num_beams == 1:
            requests = [Request(sample.ids, sample.prompt.text, sample.index) for sample in samples]
            for i, completion in generate(model, requests, self.sampler, self.stop, self.size, on_token):
                yield samples[i], completion
            return
        process = partial(process_logits, decode=decode, eos_id=eos_id)
        n = decode.num_samples
        step = n * max(1, self.size // decode.num_beams)
        for start in range(0, len(samples), step):
            batch = samples[start : start + step]
            prompts = [sample.ids for sample in batch[::n]]
            found = beam_search(
                model, prompts, decode.num_beams, n, decode.length_penalty, decode.max_new_tokens, eos_id, process
            )
            for i, completion in enumerate(chain.from_iterable(found)):
                for token in completion.ids:
                    on_token(start + i, token)
                yield batch[i], completion

    def _finish(self) -> list[GenerationRow]:
        place = {sample.key: i for i, sample in enumerate(self.samples)}
        rows = {name: sorted(rows, key=lambda row: place[_key(row)]) for name, rows in self.journal.rows.items()}
        self.journal.finish(rows)
        if self.decode.logprobs is None:
            (self.run_dir / TOKENS).unlink(missing_ok=True)  # of another run in this folder
        return rows[GENERATIONS]

    def _rows(self, sample: Sample, completion: Completion) -> dict[str, list[Any]]:
        decode, tokenizer = self.decode, self.checkpoint.tokenizer
        ids = completion.ids[:-1] if completion.finish_reason == "eos" else completion.ids
        row = GenerationRow(
            prompt_id=sample.prompt.id,
            sample=sample.index,
            prompt=sample.prompt.text,
            completion=tokenizer.decode(ids)[: completion.text_length],
            n_prompt_tokens=len(sample.ids),
            n_new_tokens=len(completion.ids),
            finish_reason=completion.finish_reason,
            logprob=completion.logprob,
            model=self.checkpoint.name,
            weights=self.checkpoint.weights,
            greedy=decode.greedy,
            temperature=decode.temperature,
            top_k=decode.top_k,
            top_p=decode.top_p,
            min_p=decode.min_p,
            typical_p=decode.typical_p,
            repetition_penalty=decode.repetition_penalty,
            no_repeat_ngram_size=decode.no_repeat_ngram_size,
            min_new_tokens=decode.min_new_tokens,
            stop=json.dumps(decode.stop, ensure_ascii=False) if decode.stop else None,
            num_beams=decode.num_beams,
            length_penalty=decode.length_penalty,
            on_overflow=decode.on_overflow,
            seed=self.config.seed,
        )
        tokens = [
            TokenRow(*sample.key, step, rank, id, tokenizer.decode([id]), logprob, id == pick.token, pick.kept)
            for step, pick in enumerate(completion.picks)
            for rank, (id, logprob) in pick.ranked()
        ]
        return {GENERATIONS: [row], TOKENS: tokens}

    def _settings(self) -> dict[str, Any]:
        """All that the tables depend on, but for the batch size."""
        prompts = json.dumps([(sample.key, sample.prompt.text) for sample in self.samples])
        return {
            "decode": asdict(self.decode),
            "seed": self.config.seed,
            "dtype": self.config.dtype,
            "device": self.checkpoint.model.lm_head.weight.device.type,
            "model": asdict(self.checkpoint.model.config),
            "weights": [self.checkpoint.weights, self.checkpoint.stamp],
            "prompts": hashlib.sha256(prompts.encode("utf-8", "surrogatepass")).hexdigest(),
        }


def _key(row: GenerationRow | TokenRow) -> tuple[str, int]:
    """Of the sample that a row is of."""
    return row.prompt_id, row.sample
