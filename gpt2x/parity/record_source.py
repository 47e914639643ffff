"""Where a validation gets the reference's record from: the live oracle, or a file that an earlier run saved."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.config.tasks.validate import Stage, ValidateTask
from gpt2x.decoding.context import encode_fitting
from gpt2x.errors import UserError
from gpt2x.memory import available_memory, check_room_for
from gpt2x.parity.reference.ask import ask_oracle
from gpt2x.parity.reference.record import Record
from gpt2x.parity.reference.saved import check_savable, load_record, save_record
from gpt2x.parity.reference.sound import check_finite
from gpt2x.parity.stages import STAGES
from gpt2x.paths import expanded
from gpt2x.prompts import Prompt, read_prompts


class RecordSource(Protocol):
    """Has the reference's answers."""

    @property
    def live(self) -> bool:
        """Whether transformers can be asked for more."""

    def get(self, checkpoint: Checkpoint, stages: Collection[Stage], copies: int) -> Record:
        """The answers that the stages need, while `copies` models are in memory beside the checkpoint."""


@dataclass(frozen=True)
class KnownRecord:
    """The answers that an earlier validation of the same checkpoint has got."""

    record: Record
    live: bool

    def get(self, checkpoint: Checkpoint, stages: Collection[Stage], copies: int) -> Record:
        return self.record


@dataclass(frozen=True)
class SavedRecord:
    """A file that OracleRecord has saved."""

    path: Path

    @property
    def live(self) -> bool:
        return False

    def get(self, checkpoint: Checkpoint, stages: Collection[Stage], copies: int) -> Record:
        """Raises UserError if the file cannot be read, was made with other weights, or holds NaN."""
        record = load_record(self.path, checkpoint)
        check_finite(record, checkpoint.weights)
        return record.with_portions()


@dataclass(frozen=True)
class OracleRecord:
    """What transformers answers now."""

    prompt: str | list[int]
    """A text, or the token ids of one."""
    gen_prompts: list[Prompt]
    """Texts that the stage generation continues."""
    max_new_tokens: int
    save_to: Path | None = None
    """If given, all stages' answers are asked for and saved."""

    @property
    def live(self) -> bool:
        return True

    def get(self, checkpoint: Checkpoint, stages: Collection[Stage], copies: int) -> Record:
        """The answers that the stages need, in float64 or, if that does not fit in memory, in the checkpoint's dtype.

        `copies` models in the checkpoint's dtype will be in memory beside the checkpoint. Raises UserError if a
        prompt does not fit in the context, the reference's logits are not finite or change from run to run, or the
        record cannot be saved.
        """
        if self.save_to is not None:
            check_savable(self.save_to)
        tokenizer, n_positions = checkpoint.tokenizer, checkpoint.model.config.n_positions
        if isinstance(self.prompt, str):
            prompt, ids = self.prompt, encode_fitting(tokenizer, self.prompt, 0, n_positions, "prompt")
        else:
            prompt, ids = tokenizer.decode(self.prompt), self.prompt
        wanted = {stage.name for stage in STAGES if stage.asks_oracle and (stage.name in stages or self.save_to)}
        if Stage.GENERATION in wanted:
            for each in self.gen_prompts:
                encode_fitting(tokenizer, each.text, self.max_new_tokens, n_positions, "task.gen_prompt")
        check_room_for("transformers")
        fits, gradients_fit = fits_in_memory(checkpoint, len(ids), copies)
        if not gradients_fit:
            wanted.discard(Stage.GRADIENTS)
        exact = torch.float64 if fits else checkpoint.model.lm_head.weight.dtype
        record = ask_oracle(checkpoint, prompt, ids, self.gen_prompts, self.max_new_tokens, wanted, exact)
        check_finite(record, checkpoint.weights)
        if self.save_to is not None:
            save_record(record, self.save_to)
        return record.with_portions()


def record_source(
    prompts: list[Prompt], max_new_tokens: int, task: ValidateTask, ids: list[int] | None = None
) -> OracleRecord | SavedRecord:
    """Where these settings say that the record comes from. `ids`, if given, take the place of the prompt.

    Raises UserError if there is not exactly one prompt.
    """
    if task.reference is not None:
        return SavedRecord(expanded(task.reference, "task.reference"))
    if ids is None and len(prompts) != 1:
        raise UserError("prompt: validate compares the logits of one prompt; give more texts as task.gen_prompt")
    save_to = expanded(task.save_reference, "task.save_reference") if task.save_reference is not None else None
    gen_prompts = read_prompts(task.gen_prompt, key="task.gen_prompt")
    return OracleRecord(prompts[0].text if ids is None else ids, gen_prompts, max_new_tokens, save_to)


def fits_in_memory(checkpoint: Checkpoint, n_tokens: int, copies: int) -> tuple[bool, bool]:
    """Whether one float64 model and what is recorded of it fit in memory; and whether its gradients fit as well.

    `copies` models in the dtype asked for are made beside the checkpoint.
    """
    architecture = checkpoint.model.config
    n_parameters = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    weights = 8 * n_parameters
    in_dtype = copies * n_parameters * checkpoint.model.lm_head.weight.element_size()
    # Inputs and outputs of each module, once for the reference and twice for the subject: about 130 n_embd per token
    # and layer. Then some eight logits per token of the prompt, and three per position of the context.
    traces = 8 * n_tokens * (130 * architecture.n_layer * architecture.n_embd + 8 * architecture.vocab_size)
    traces += 8 * 3 * architecture.n_positions * architecture.vocab_size
    free = available_memory()
    return weights + in_dtype + traces < free, 2 * weights + in_dtype + traces < free
