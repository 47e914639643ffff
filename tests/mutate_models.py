"""Mutates correct models, and counts the mutants that validate catches, and the causes that it names.

    python -m tests.mutate_models [MUTANTS] [SEED]

Whether a mutant computes another function is judged without gpt2x: its logits in float64 are compared with those of
the model that it was made of. A mutant that does must not pass, and one that does not must not fail. Mutants that
raise an exception, or return hidden states, are left out.

A known cause is proved twice: each mutant is validated with two checkpoints, which have other sizes, weights and
prompts. What is named with one of them only is a coincidence, and counts as wrong. So does a cause outside the parts
of the model whose code was changed, and one about the parameters of norms where the code of none was changed. pytest
does not collect this file; tests/parity/test_mutants.py runs a small form of it.
"""

import math
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from gpt2x.checkpoints.load import load_checkpoint
from gpt2x.config.model import ModelConfig
from gpt2x.config.subject import SubjectConfig
from gpt2x.config.tasks.validate import Stage
from gpt2x.config.weights import WeightsConfig
from gpt2x.errors import UserError
from gpt2x.parity.process.remote import RemoteTarget
from gpt2x.parity.record_source import KnownRecord, OracleRecord
from gpt2x.parity.source import Source
from gpt2x.parity.validation import Validation, validate
from gpt2x.tokenizer import train_tokenizer
from tests.conftest import tiny_hf
from tests.mutants import STYLES, SUBJECTS, Mutant, sample

SECONDS = 60  # per mutant
_STAGES = [Stage.CONFIG, Stage.WEIGHTS, Stage.LAYERS, Stage.LOGITS]
_SIZES = ({"n_layer": 3, "n_embd": 48, "n_head": 3}, {"n_layer": 2, "n_embd": 40, "n_head": 4})
_LENGTHS = (11, 14)  # of the prompts
_CHANGED, _SAME = 1e-8, 1e-11  # relative differences of logits, on either side of validate's tolerance


class Reference:
    """A checkpoint in which no tensor is neutral, a prompt, and what the reference answers."""

    def __init__(self, number: int, folder: Path) -> None:
        torch.manual_seed(number)
        self.sizes = {**_SIZES[number], "n_positions": 32}
        model = tiny_hf(**self.sizes, bos_token_id=0, eos_token_id=0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
        model.save_pretrained(folder)
        train_tokenizer(" ".join(f"line {i}: to be, or not to be {i * i}.\n" for i in range(200)), 300).save(folder)
        weights = WeightsConfig("local", path=str(folder))
        self.checkpoint = load_checkpoint(ModelConfig(name="auto"), weights, torch.float64, torch.device("cpu"))
        ids = torch.randint(300, (_LENGTHS[number],)).tolist()
        self.record = KnownRecord(OracleRecord(ids, [], 0).get(self.checkpoint, _STAGES, copies=3), live=True)

    def validate(self, path: Path, target: str, text: str) -> Validation:
        """Validates a target in a file as if that had the text, in a process of its own as the command does.

        Raises UserError if there is no verdict.
        """
        asked = SubjectConfig(target, "copy", import_seconds=SECONDS, answer_seconds=SECONDS)
        with closing(RemoteTarget(asked, {str(path): text})) as remote:
            remote.check()
            return validate(self.checkpoint, Source(asked, remote), self.record, dtype="float64", stages=_STAGES)


class Original:
    """A correct model with random weights, for the comparison that gpt2x has no part in."""

    def __init__(self, style: str) -> None:
        file, _, self._name = STYLES[style].target.partition(":")
        self._path, self._shape = SUBJECTS / file, _Shape()
        torch.manual_seed(0)
        self._model = self._make(self._path.read_text())
        for parameter in self._model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
        self._state = self._model.state_dict()
        self._ids = [torch.randint(60, size) for size in ((1, 1), (1, 5), (3, 16))]
        self._logits = [self._model(ids) for ids in self._ids]

    def difference(self, mutant: Mutant) -> float | None:
        """The largest relative difference of the logits.

        None if the mutant raises an exception, or returns hidden states: validate applies the head to these.
        """
        torch.manual_seed(1)
        try:
            model = self._make(mutant.text)
            own = model.state_dict()
            model.load_state_dict({**own, **self._weights_for(own)})
            logits = [model(ids) for ids in self._ids]
            if all(each.shape[-1] == self._shape.n_embd for each in logits):
                return None
            return max(map(_difference, logits, self._logits))
        except Exception:
            return None

    def _weights_for(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights that a mutant with these tensors gets: by their place where other names have the same shapes."""
        has_shapes = [each.shape for each in own.values()] == [each.shape for each in self._state.values()]
        if has_shapes and own.keys() != self._state.keys():
            return dict(zip(own, self._state.values(), strict=True))
        return {name: each for name, each in self._state.items() if name in own}

    def _make(self, text: str) -> nn.Module:
        module = {"__name__": "mutant", "__file__": str(self._path)}
        sys.modules["mutant"] = SimpleNamespace(**module)  # type: ignore[assignment]  # for dataclasses
        exec(compile(text, self._path, "exec"), module)
        model: nn.Module = module[self._name](self._shape)  # type: ignore[operator]
        return model.double().eval().requires_grad_(False)


@dataclass
class _Shape:
    vocab_size: int = 60
    n_positions: int = 16
    block_size: int = 16
    n_embd: int = 24
    n_layer: int = 3
    n_head: int = 2


def _difference(actual: Tensor, expected: Tensor) -> float:
    if actual.shape != expected.shape or not actual.isfinite().all():
        return math.inf
    return ((actual - expected).abs().max() / expected.abs().max()).item()


PARTS = {
    "Norm": r"(h\.\S+\.)?ln_\w+",
    "ScaledNorm": r"(h\.\S+\.)?ln_\w+",
    "Activation": r"h\.\S+\.mlp(\.act)?",
    "MLP": r"h\.\S+\.mlp(\..+)?",
    "Sequence": r"h\.\S+\.mlp(\..+)?",
    "MatrixMLP": r"h\.\S+\.mlp(\..+)?",
    **dict.fromkeys(
        ("CausalSelfAttention", "Attention", "causal", "attend", "Head", "Heads", "Projections", "Einsum"),
        r"h\.\S+\.attn(\..+)?",
    ),
    **dict.fromkeys(("Block", "Layer"), r"h\.[^.]+(\..+)?|input of h\..+"),
    **dict.fromkeys(("GPT", "GPT2", "Model"), r".*"),
}
"""Definition -> the sites that a mistake in it can have."""
_OF_NORMS = ("LayerNorm", "no parameter")  # in causes that a change elsewhere cannot have


@dataclass
class Judgement:
    """What became of a mutant."""

    mutant: Mutant
    changed: bool | None
    """Whether it computes another function; None if the difference is about as large as the tolerance."""
    verdict: str
    """`pass`, `fail`, or why there is none."""
    causes: list[str] = field(default_factory=list)
    """`sites: cause`."""
    kind: str = ""
    """How its causes were judged: `wrong` if one is wrong, else `unknown` if one is unknown, else `named`."""

    @cached_property
    def outcome(self) -> str:
        """`caught`, `refused`, `same`, or what must not be: `missed` or `false alarm`."""
        if self.verdict not in ("pass", "fail"):
            return "refused"
        if self.verdict == "pass":
            return "missed" if self.changed else "same"
        return "false alarm" if self.changed is False else "caught"

    @property
    def is_wrong(self) -> bool:
        """Whether validate is wrong about it."""
        return self.outcome in ("missed", "false alarm") or self.kind == "wrong"

    def __str__(self) -> str:
        found = "; ".join(self.causes) or (self.verdict if self.outcome == "refused" else "")
        return f"{self.outcome}{f' ({self.kind})' if self.kind else ''}  {self.mutant}" + (
            f"\n    {found}" * bool(found)
        )


def judge(mutant: Mutant, difference: float, references: list[Reference]) -> Judgement:
    """Validates a mutant: with all references if a cause is named, and otherwise once."""
    changed = None if _SAME < difference < _CHANGED else difference >= _CHANGED
    named: list[list[tuple[str, str]]] = []
    for reference in references:
        try:
            with _limit():
                found = reference.validate(mutant.path, mutant.target, mutant.text)
        except (UserError, TimeoutError) as error:
            if not named:
                return Judgement(mutant, changed, " ".join(str(error).split()))
            break
        if found.passed and not named:
            return Judgement(mutant, changed, "pass")
        named.append([(each.sites, each.cause if each.known else "") for each in found.causes])
        if not any(cause for _, cause in named[0]):
            break
    return Judgement(
        mutant, changed, "fail", [f"{sites}: {cause or 'unknown'}" for sites, cause in named[0]], _kind(mutant, named)
    )


def _kind(mutant: Mutant, named: list[list[tuple[str, str]]]) -> str:
    """Compares what was named with each of the references."""
    allowed = re.compile(PARTS[mutant.place.partition(".")[0]])
    sites = [site for found in named for each, cause in found if cause for site in each.split(", ")]
    if any(allowed.fullmatch(site) is None for site in sites):
        return "wrong"
    about_code = not mutant.place.endswith("__init__") and mutant.place.partition(".")[0] not in ("Norm", "ScaledNorm")
    if about_code and any(words in cause for found in named for _, cause in found for words in _OF_NORMS):
        return "wrong"
    texts = [[_without_sizes(cause) for _, cause in found if cause] for found in named]
    if any(text != texts[0] for text in texts):
        return "wrong"
    return "named" if all(cause for found in named for _, cause in found) else "unknown"


def _without_sizes(cause: str) -> str:
    """The text of a cause without numbers of layers, shapes, and other numbers that a size gives."""
    return re.sub(r"(scaled by |values times )[\d.e-]+|h\.\d+(, h\.\d+)*|\[[\d, ]+\]", r"\1", cause)


@contextmanager
def _limit() -> Iterator[None]:
    """Raises TimeoutError after SECONDS."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no verdict after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@torch.no_grad()
def judge_all(drawn: Iterable[Mutant], n: int, folder: Path) -> list[Judgement]:
    """Judges the first n mutants that raise no exception; prints those that validate gets wrong."""
    originals = {style: Original(style) for style in STYLES}
    references = [Reference(i, folder / str(i)) for i in range(len(_SIZES))]
    found = []
    for mutant in drawn:
        difference = originals[mutant.style].difference(mutant)
        if difference is not None:
            found.append(judge(mutant, difference, references))
            if found[-1].is_wrong:
                print(found[-1], flush=True)
        if len(found) == n:
            break
    return found


def summary(found: list[Judgement]) -> str:
    """Counts, in one line each."""
    outcomes, kinds = Counter(each.outcome for each in found), Counter(each.kind for each in found if each.kind)
    changed = Counter(each.outcome for each in found if each.changed is not False)
    return (
        f"{len(found)} mutants, {changed.total()} compute another function: {dict(changed)}; "
        f"all: {dict(outcomes)}; causes: {dict(kinds)}"
    )


def main() -> None:
    n, seed = (*map(int, sys.argv[1:3]), *(300, 0)[len(sys.argv) - 1 :])
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = judge_all(sample(seed), n, Path(folder))
    print(f"{summary(found)}; {time.monotonic() - start:.0f} s")
    sys.exit(any(each.is_wrong for each in found))


if __name__ == "__main__":
    main()
