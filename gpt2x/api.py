"""The Python API: load, generate, validate, evaluate and read_runs.

The functions do what the tasks of the command line do, by the same code, but print nothing and write no files. Bad
input raises gpt2x.UserError with one line. The state of the process (random numbers, torch's settings, environment
variables, ...) is left as it was found.
"""

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from gpt2x.checkpoints.named import Model, checkpoint_of, read_named, remember
from gpt2x.config.checks import check_batch_size, check_seed
from gpt2x.config.decode import DecodeConfig
from gpt2x.config.options import build, option, shared
from gpt2x.config.subject import SubjectConfig
from gpt2x.config.tasks.validate import Stage, ValidateTask
from gpt2x.decoding.rows import GenerationRow
from gpt2x.decoding.run import generate_samples
from gpt2x.decoding.samples import samples_of
from gpt2x.errors import UserError, nearest
from gpt2x.evaluation.perplexity import evaluate_texts
from gpt2x.evaluation.rows import EvaluationRow
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity import validation
from gpt2x.parity.process.remote import RemoteTarget
from gpt2x.parity.record_source import record_source
from gpt2x.parity.recorded.recording import read_recording
from gpt2x.parity.recorded.validation import validate_recording
from gpt2x.parity.source import Source, named_target
from gpt2x.parity.subject.build import Maker
from gpt2x.parity.subject.given import GivenFactory, GivenModule, check_size
from gpt2x.paths import expanded, read_utf8
from gpt2x.process import state_kept
from gpt2x.prompts import read_prompts
from gpt2x.reports.notebook import Validation as Validation
from gpt2x.reports.printed import show_printed
from gpt2x.runs.read import read_tables
from gpt2x.runs.tables import to_frame
from gpt2x.tasks.registry import TABLES
from gpt2x.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pandas import DataFrame


@state_kept()
def load(
    path_or_model: str | os.PathLike[str] = "auto",
    *,
    weights: str = "local",
    device: str = "auto",
    dtype: str = "float32",
    tokenizer: str | os.PathLike[str] | None = None,
) -> tuple[GPT2, Tokenizer]:
    """Loads a model for inference, and its tokenizer.

    Args:
        path_or_model: a .pt state dict, a .safetensors file or a Hugging Face directory, or the name of a model:
            nano, gpt2, ... `auto` is data/gpt2_weights.safetensors or .pt if it is there, else the bundled nano.
        weights: where a model that is given by name comes from: `local` (files only), `auto` (local, or else the
            Hugging Face cache and hub) or `random`.
        device: auto, cpu, cuda or mps.
        dtype: float32, float64, bfloat16, float16, or int8 (on a CPU).
        tokenizer: a folder with a tokenizer, or `gpt2` for GPT-2's vocabulary. By default it is the one beside the
            weights, or else a bundled one with as many tokens, with a warning unless the weights are known to be its.

    Returns:
        The model, in eval mode and without gradients, and the tokenizer. `model(ids)` takes token ids [B, T] to
        logits [B, T, vocab_size]. Both belong to the caller: no other call uses them.

    Raises:
        UserError: the weights are missing, damaged, or do not fit in memory, or a setting is not allowed.

    >>> import gpt2x, torch
    >>> model, tokenizer = gpt2x.load("nano", device="cpu")
    >>> ids = torch.tensor([tokenizer.encode("To be, or not to be")])
    >>> logits = model(ids)
    >>> logits.shape[-1] == tokenizer.vocab_size
    True
    """
    checkpoint = read_named(path_or_model, weights, device, dtype, shared=False, tokenizer=tokenizer)
    remember(checkpoint)
    return checkpoint.model, checkpoint.tokenizer


@state_kept()
def generate(
    prompts: str | Iterable[str],
    *,
    model: Model = "auto",
    seed: int = 0,
    batch_size: int | str = "auto",
    deterministic: bool = False,
    **decode: Any,
) -> "DataFrame":
    """Continues prompts, as task=generate does.

    Args:
        prompts: one text or several.
        model: a name or a path, as for `load`, or what `load` returned: for another device, dtype or source.
        seed: sampling draws from a random stream per seed, prompt and sample.
        batch_size: samples that are decoded together; `auto`: as many as memory allows.
        deterministic: whether a text has the same bytes at any batch_size (on a CPU).
        decode: the settings of conf/decode/sample.yaml: greedy, temperature, top_k, top_p, max_new_tokens,
            num_samples, stop, ... What is not given has the value stated there, so text is sampled.

    Returns:
        One row per sample, with the columns of generations.csv: `completion` is the new text, `logprob` its
        log-probability under the unfiltered model, in nats.

    Raises:
        UserError: a prompt is empty, or too long for the context, or a setting does not exist or is not allowed.

    >>> import gpt2x
    >>> table = gpt2x.generate("To be, or", model="nano", num_samples=2, top_k=40, max_new_tokens=8)
    >>> table[["prompt_id", "sample", "n_new_tokens"]].values.tolist()
    [['7a12087c', 0, 8], ['7a12087c', 1, 8]]
    """
    settings = build(DecodeConfig, "decode.", option("decode", "sample") | decode)
    if settings.logprobs is not None:
        raise UserError("decode.logprobs: generate returns one row per sample; tokens.csv comes from task=generate")
    check_seed("seed", seed)
    check_batch_size("batch_size", batch_size)
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    checkpoint = checkpoint_of(model)
    samples = samples_of(checkpoint, read_prompts(texts, key="prompts"), settings)
    found = generate_samples(checkpoint, samples, settings, seed, batch_size, deterministic=deterministic)
    return to_frame(GenerationRow, found.generations)


@state_kept()
def validate(
    module_or_target: nn.Module | Callable[..., nn.Module] | str | None = None,
    *,
    reference: Model = "auto",
    saved_reference: str | os.PathLike[str] | None = None,
    stages: Sequence[str] | None = None,
    weights: str = "copy",
    rename: Sequence[Sequence[str]] = (),
    prompt: str | None = None,
    gen_prompt: str | list[str] | None = None,
    max_new_tokens: int | None = None,
) -> Validation:
    """Is this GPT-2 the real GPT-2; if not, which module is wrong, and why? As task=validate does.

    Args:
        module_or_target: a model that is built already (it is copied, and never changed); a class or function that
            makes one from sizes, a config or nothing; or `path/to/file.py:name`, as for subject.target: ITS CODE IS
            EXECUTED, in a process of its own. Or `FILE.safetensors`, in which any program has recorded what it answers
            (it is read, not executed; gpt2x/parity/recorded/README.md): its token ids take the place of `prompt`. None
            validates gpt2x's own model. A model that is built in float32 keeps tensors that are no parameters as they
            were rounded then, which the comparison in float64 can notice: give its class.
        reference: the checkpoint whose weights Hugging Face's model is given: a name or a path, as for `load`, or
            what `load` returned. Its dtype and device are those of the validation.
        saved_reference: a FILE.safetensors that task.save_reference wrote with these weights; transformers is then
            not needed.
        stages: some of config, tokenizer, weights, layers, logits, loss, gradients, cache, padding, sampling,
            generation; all if it is not given.
        weights: copy (the reference's weights are copied into the model) or own (its own weights are checked too).
        rename: [regex, replacement] pairs from the model's names to Hugging Face's.
        prompt: the text on which logits are compared.
        gen_prompt: one or more texts that both models continue greedily.
        max_new_tokens: for these texts, per text.

    Returns:
        A Validation: `passed`, `first_divergence`, `probable_cause`, `causes` (all causes: the columns of causes.csv),
        `checks` (the columns of parity.csv; differences are relative to the reference's largest value, unless the
        metric says otherwise) and `heat_map()`. A notebook shows the verdict, the place, the causes and the heat map.

    Raises:
        UserError: the validation cannot begin, for example because the model has another size than the reference.

    >>> import gpt2x
    >>> found = gpt2x.validate(reference="nano", stages=["config", "logits"])
    >>> found.passed
    True
    >>> found.checks["status"].unique().tolist()
    ['ok']
    """
    given = {
        "stages": [str(stage) for stage in stages] if stages is not None else None,
        "gen_prompt": gen_prompt,
        "reference": os.fspath(saved_reference) if saved_reference is not None else None,
    }
    given = {key: value for key, value in given.items() if value is not None}
    task = build(ValidateTask, "task.", option("task", "validate") | given)
    recorded = isinstance(module_or_target, str) and module_or_target.endswith(".safetensors")
    asked = {
        "target": module_or_target if isinstance(module_or_target, str) else None,
        "weights": weights,
        "rename": [list(rule) for rule in rename],
        "kind": "recorded" if recorded else "module",
    }
    subject = build(SubjectConfig, "subject.", asked)
    recording = read_recording(str(module_or_target), subject.rename) if recorded else None
    maker = None if recorded else _maker(module_or_target, subject)
    if max_new_tokens is None:
        max_new_tokens = option("decode", "sample")["max_new_tokens"]
    decode = build(DecodeConfig, "decode.", {"max_new_tokens": max_new_tokens})
    prompts = read_prompts(shared()["prompt"] if prompt is None else prompt)
    source = record_source(prompts, decode.max_new_tokens, task, recording.ids if recording else None)
    checkpoint = checkpoint_of(reference)
    if isinstance(reference, (GPT2, tuple)):  # the stages change the mode and the gradients of gpt2x's own model
        checkpoint = replace(checkpoint, model=copy.deepcopy(checkpoint.model))
    if isinstance(maker, GivenModule):
        check_size(maker, subject.rename, checkpoint.model.config)
    chosen = [Stage(name) for name in task.stages]
    if recording is not None:
        return Validation(validate_recording(checkpoint, recording, source, stages=chosen))
    examined = Source(subject, maker)
    try:
        examined.check()
        found = validation.validate(checkpoint, examined, source, dtype=checkpoint.dtype, stages=chosen)
    finally:
        show_printed(examined.close())
    return Validation(found)


@state_kept()
def evaluate(
    texts: str | Iterable[str] | os.PathLike[str], *, model: Model = "auto", stride: int | None = None
) -> "DataFrame":
    """How well a model predicts texts, as task=evaluate does.

    Args:
        texts: one text or several; or a pathlib.Path of a UTF-8 file, whose whole content is one text.
        model: a name or a path, as for `load`, or what `load` returned: for another device, dtype or source.
        stride: the tokens by which the window of n_positions tokens moves; half a window if it is not given. The
            smaller it is, the more context the tokens have, and the longer it takes.

    Returns:
        One row per text, with the columns of evaluation.csv: `loss` is the mean over all tokens but the first, in nats
        per token, `perplexity` its exponential, and `bits_per_byte` can be compared between tokenizers.

    Raises:
        UserError: a text has fewer than two tokens, a file cannot be read, or the stride is not below n_positions.

    >>> import gpt2x
    >>> table = gpt2x.evaluate("To be, or not to be, that is the question.", model="nano")
    >>> table[["n_tokens", "n_bytes"]].values.tolist()
    [[14, 40]]
    >>> bool(20 < table.loc[0, "perplexity"] < 40)
    True
    """
    if isinstance(texts, os.PathLike):
        texts = read_utf8(Path(texts), "texts")
    elif isinstance(texts, str) and os.path.isfile(texts):  # noqa: PTH113  # pathlib raises for a long text
        raise UserError(f"texts={texts!r} is a file: for its content, give pathlib.Path({texts!r})")
    given = [texts] if isinstance(texts, str) else list(texts)
    checkpoint = checkpoint_of(model)
    found = evaluate_texts(checkpoint, read_prompts(given, key="texts"), stride)
    return to_frame(EvaluationRow, found)


@state_kept()
def read_runs(
    folder: str | os.PathLike[str] = "runs", table: str = "generations", *, unfinished: bool = False
) -> "DataFrame":
    """One table of all runs and sweep jobs in a folder and below it, with the settings of each run as columns.

    Args:
        folder: `runs`, the folder of a sweep, or that of one run.
        table: generations, tokens, summary, causes, parity, side_by_side, train, evaluation, benchmark or timing.
        unfinished: also read runs that are running, failed or were killed, and add their status as `run.status`.

    Returns:
        The rows of all tables: first `run` (the path of the run folder), then the table's columns in the units of
        runs/README.md, then the settings by dotted key, such as `decode.temperature`. A setting that has the name of
        a column of the table, such as `seed` of generations, is left out. Lists are given as JSON.

    Raises:
        UserError: there is no such table, or no run in the folder that has it.

    >>> import gpt2x
    >>> runs = gpt2x.read_runs("runs", table="generations")  # doctest: +SKIP
    >>> runs.groupby("decode.temperature")["logprob"].mean()  # doctest: +SKIP
    """
    tables = {Path(file).stem: file for file in TABLES}
    if table not in tables:
        raise UserError(f"table={table}: not one of {', '.join(tables)}{nearest(table, tables)}")
    path = expanded(folder, "folder")
    if not path.is_dir():
        raise UserError(f"{os.fspath(folder)}: no such folder")
    return read_tables(path, tables[table], TABLES[tables[table]], unfinished)


def _maker(module_or_target: Any, subject: SubjectConfig) -> Maker | RemoteTarget | None:
    """What makes the subject; None for gpt2x's own model."""
    if module_or_target is None:
        return None
    if isinstance(module_or_target, str):
        return named_target(subject)
    if isinstance(module_or_target, nn.Module):
        return GivenModule(module_or_target)
    if callable(module_or_target):
        return GivenFactory(module_or_target)
    raise UserError(f"validate: a {type(module_or_target).__name__}; give a torch.nn.Module, a class or a function")
