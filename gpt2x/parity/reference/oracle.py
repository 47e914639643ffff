"""The oracle: transformers' GPT2LMHeadModel with eager attention. The only module here that imports transformers."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from gpt2x.checkpoints.formats import read_contents
from gpt2x.checkpoints.load import Checkpoint
from gpt2x.checkpoints.names import to_file
from gpt2x.config.decode import DecodeConfig
from gpt2x.errors import UserError

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences transformers: warnings (when it is imported, too), log messages and progress bars."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging

        level, with_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if with_bars:
                logging.enable_progress_bar()


@_quiet()
def load_oracle(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> "GPT2LMHeadModel":
    """The same weights in transformers, which reads the file itself, by its own rules for names and layout.

    Random weights, and those of files that transformers would read in another way, are taken from gpt2x's model.
    Raises UserError if transformers does not find a tensor.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "eager", "output_loading_info": True}
    path = checkpoint.path if checkpoint.account.reads_alike else None
    # With output_loading_info this returns a pair, which the declared type leaves out.
    loaded: Any
    if path is not None and path.is_dir():
        loaded = GPT2LMHeadModel.from_pretrained(path, local_files_only=True, **options)
    else:
        architecture = asdict(checkpoint.model.config)
        del architecture["dropout"]  # gpt2x's own name; the others are Hugging Face's
        eos_id = checkpoint.tokenizer.eos_id
        loaded = GPT2LMHeadModel.from_pretrained(
            None,
            config=GPT2Config(**architecture, bos_token_id=eos_id, eos_token_id=eos_id),
            state_dict=to_file(checkpoint.model) if path is None else read_contents(path).tensors,
            **options,
        )
    model, info = cast("tuple[GPT2LMHeadModel, dict[str, Any]]", loaded)
    missing = set(info["missing_keys"]) - {"lm_head.weight"}
    if missing:
        raise UserError(f"{checkpoint.weights}: transformers finds no {sorted(missing)[0]} in it")
    torch.nn.Module.to(model, device)  # the declared type of transformers' own .to is wrong
    return model.eval().requires_grad_(False)


def oracle_parameters(model: "GPT2LMHeadModel") -> dict[str, Tensor]:
    """The oracle's weights by name less `transformer.`, in its own (Conv1D) layout, the tied head left out."""
    return {
        name.removeprefix("transformer."): parameter.detach()
        for name, parameter in model.named_parameters()
        if name != "lm_head.weight"
    }


@_quiet()
@torch.inference_mode()
def oracle_greedy(model: "GPT2LMHeadModel", ids: list[int], max_new_tokens: int, eos_id: int | None) -> list[int]:
    """New tokens of transformers' greedy generate, the end-of-text token included."""
    output: Any = model.generate(
        torch.tensor([ids], device=model.device),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=eos_id,
        pad_token_id=eos_id if eos_id is not None else 0,
    )
    new: list[int] = output[0, len(ids) :].tolist()
    return new


def oracle_filter(logits: Tensor, decode: DecodeConfig) -> Tensor:
    """logits [B, V] -> [B, V], as transformers' own warpers for these settings return them."""
    import transformers

    warpers: dict[str, Any] = {
        "temperature": transformers.TemperatureLogitsWarper,
        "top_k": transformers.TopKLogitsWarper,
        "top_p": transformers.TopPLogitsWarper,
        "min_p": transformers.MinPLogitsWarper,
        "typical_p": transformers.TypicalLogitsWarper,
    }
    for key, warper in warpers.items():
        if decode.first_set(key):
            logits = warper(getattr(decode, key))(torch.zeros(len(logits), 0, dtype=torch.long), logits)
    return logits


def oracle_process(
    logits: Tensor, texts: list[list[int]], n_prompts: list[int], decode: DecodeConfig, eos_id: int
) -> Tensor:
    """logits [N, V] -> [N, V], as transformers' own processors for these settings return them, row by row.

    `texts` are the N texts so far, which begin with prompts of `n_prompts` tokens.
    """
    from transformers import (
        LogitsProcessorList,
        MinNewTokensLengthLogitsProcessor,
        NoRepeatNGramLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
    )

    rows = []
    for row, text, n_prompt in zip(logits, texts, n_prompts, strict=True):
        processors = LogitsProcessorList()
        if decode.repetition_penalty != 1.0:
            processors.append(RepetitionPenaltyLogitsProcessor(decode.repetition_penalty))
        if decode.no_repeat_ngram_size is not None:
            processors.append(NoRepeatNGramLogitsProcessor(decode.no_repeat_ngram_size))
        if decode.min_new_tokens:
            processors.append(MinNewTokensLengthLogitsProcessor(n_prompt, decode.min_new_tokens, eos_id))
        rows.append(processors(cast(torch.LongTensor, torch.tensor([text])), row[None]))
    return torch.cat(rows)


@_quiet()
def oracle_tokenize(directory: Path, texts: list[str]) -> list[tuple[list[int], str]]:
    """Ids from transformers' GPT-2 tokenizer over the same vocabulary files, and the text that they decode to."""
    from transformers import GPT2TokenizerFast  # type: ignore[attr-defined]  # declared under another name

    tokenizer = GPT2TokenizerFast.from_pretrained(directory, local_files_only=True)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    return [(each, tokenizer.decode(each, clean_up_tokenization_spaces=False)) for each in ids]
