"""How a model is called: what its forward pass needs beside the ids, by the names of its arguments and by trial."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gpt2x.parity.answers import tensors_in
from gpt2x.parity.subject.code import SubjectError, subject_code
from gpt2x.parity.subject.length import filled
from gpt2x.parity.subject.loss import LossInputs

# Names of the argument that some models need in order to answer for all positions.
_TARGETS = ("targets", "target", "labels", "y")
_MASK = re.compile(r".*mask.*")
_POSITIONS = re.compile(r"pos(itions?)?(_?ids?)?|position_?ids?")
_COUNT = re.compile(r"start_?pos(ition)?|(pos(ition)?_)?offset|past_length|cache_position")
# Names of arguments for a mask that have a default: without it, some models see all tokens.
_OPTIONAL_MASKS = ("mask", "attn_mask", "causal_mask", "src_mask", "tgt_mask", "look_ahead_mask")
_LOGITS = re.compile(r"(return|output|get|with)_?logits")
_CACHE = re.compile(r"(past|layer|kv|key_?value)?_?(kv_?)?caches?|past(_key_values|_kvs?)?|layer_past")
_BEGINNINGS = ("initial", "init", "new", "make", "create", "empty")
"""The first words in names of methods that make the first value of an argument, as `initial_state` makes `state`."""
_CHOICE = re.compile(r"(is_|use_|return_|output_|with_).*|train(ing)?|inference|verbose|causal")


@dataclass(frozen=True)
class _Mask:
    """A value that a mask can have; `make` is given B and T."""

    words: str
    make: Callable[[int, int], Tensor | None]


def _lower(T: int) -> Tensor:
    return torch.ones(T, T, dtype=torch.bool).tril()  # [T, T]


_MASKS = (
    _Mask("None", lambda B, T: None),
    _Mask("ones [B, T]", lambda B, T: torch.ones(B, T, dtype=torch.long)),
    _Mask("the lower triangle [T, T], true where a token is seen", lambda B, T: _lower(T)),
    _Mask("the lower triangle [1, 1, T, T], true where a token is seen", lambda B, T: _lower(T)[None, None]),
    _Mask("the lower triangle [1, 1, T, T] of ones", lambda B, T: _lower(T)[None, None].to(torch.get_default_dtype())),
    _Mask("the upper triangle [T, T], true where a token is hidden", lambda B, T: ~_lower(T)),
    _Mask("the upper triangle [T, T] of -inf", lambda B, T: torch.zeros(T, T).masked_fill(~_lower(T), -torch.inf)),
)
"""In the order in which they are tried."""


@dataclass
class Caller:
    """Calls a model with ids, and with what else its forward pass asks for.

    A mask is the first of several with which the model answers and a token does not see the next ones, or else the
    first one with which it answers. A model that fails at its first call may accept one length only, that of its
    context: the ids are then filled up at the end, and it answers for that many positions. One that asks for caches
    gets an empty one per layer. Of one that answers with the loss, the logits are what the loss is computed from.
    """

    module: nn.Module
    n_positions: int
    vocab_size: int
    n_layer: int
    passes_targets: bool = False
    """Whether targets are passed that have a default as well: some models answer for all positions only then."""
    length: int | None = field(default=None, init=False)
    """The only number of ids that the model accepts; None if that is not known to be so."""
    _takes_shorter: bool = field(default=False, init=False)
    """Whether it has accepted fewer ids than n_positions."""
    _mask: _Mask | None = field(default=None, init=False)
    _passes_caches: bool = field(default=False, init=False)
    _answers_loss: bool = field(default=False, init=False)

    @property
    def notes(self) -> list[str]:
        """What is passed for a mask, and to which length ids are filled up, one line each; empty if that is nothing."""
        found = []
        if self._mask is not None and self._mask is not _MASKS[0]:
            found.append(f"called with {', '.join(self._masks())} = {self._mask.words}")
        if self.length is not None:
            found.append(f"accepts {self.length} ids only: shorter texts are filled up at the end")
        if self._passes_caches:
            found.append(f"called with {', '.join(self._caches())} = None for each layer")
        if self._answers_loss:
            found.append("answers with the loss, from whose computation its logits are taken")
        return found

    def __call__(self, ids: Tensor, targets: Tensor) -> Tensor | None:
        """The model's answer to ids [B, T]: the first tensor that can be logits, or else the first one, if any.

        Raises SubjectError if its code fails, whatever it is given.
        """
        if self.length is not None:
            return self._answer(filled(ids, self.length), filled(targets, self.length))
        is_short = ids.shape[1] < self.n_positions
        try:
            answer = self._answer(ids, targets)
            self._takes_shorter |= is_short
            return answer
        except SubjectError:
            if self._takes_shorter or not is_short:
                raise
            with suppress(SubjectError):
                answer = self._answer(filled(ids, self.n_positions), filled(targets, self.n_positions))
                self.length = self.n_positions
                return answer
            raise

    def _answer(self, ids: Tensor, targets: Tensor) -> Tensor | None:
        if self._mask is None:
            self._mask = self._found(ids, targets) if self._masks() else _MASKS[0]
        return self._call(ids, targets, self._mask)

    def _call(self, ids: Tensor, targets: Tensor, mask: _Mask) -> Tensor | None:
        """The answer of the model; it is called again where it shows that it wants caches, or that it gives a loss."""
        try:
            found = self._called(ids, targets, mask)
        except SubjectError as error:
            if self._passes_caches or "NoneType" not in str(error) or not self._caches():
                raise
            self._passes_caches = True
            return self._call(ids, targets, mask)
        if found and all(each.ndim == 0 for each in found) and not self._answers_loss:
            self._answers_loss = True
            return self._call(ids, targets, mask)
        logits = (each for each in found if each.ndim and each.shape[-1] == self.vocab_size)
        return next(logits, found[0] if found else None)

    def _called(self, ids: Tensor, targets: Tensor, mask: _Mask) -> list[Tensor]:
        """The tensors that the model answers with, those from which it has computed a loss first."""
        named = {name: self._value(name, ids, targets, mask) for name in self._asked()}
        first = next(iter(self._arguments.values()), None)
        inputs = LossInputs()
        with subject_code(), inputs if self._answers_loss else nullcontext():
            if first is not None and first.kind == first.KEYWORD_ONLY:
                answer = self.module(**{first.name: ids}, **named)
            else:
                answer = self.module(ids, **named)
            return inputs.found + list(tensors_in(list(answer)[-1] if inspect.isgenerator(answer) else answer))

    def _found(self, ids: Tensor, targets: Tensor) -> _Mask:
        """The first mask with which a token does not see the next ones, or else the first with which it answers."""
        works: list[_Mask] = []
        errors: list[SubjectError] = []
        for mask in _MASKS:
            try:
                if self._is_causal(ids, targets, mask):
                    return mask
                works.append(mask)
            except SubjectError as error:
                errors.append(error)
        if not works:  # what is said about None is no help: it was only tried
            raise next((error for error in errors if "NoneType" not in str(error)), errors[0])
        return works[0]

    def _is_causal(self, ids: Tensor, targets: Tensor, mask: _Mask) -> bool:
        """Whether another last token leaves the answers for the tokens before it as they are."""
        others = ids.clone()
        others[:, -1] = (others[:, -1] == 0).to(others)  # 1 in the place of 0, and 0 in that of any other
        first, second = (self._call(each, targets, mask) for each in (ids.clone(), others))
        shape = ids.shape
        if first is None or second is None or first.shape[:2] != shape or ids.shape[1] < 2:
            return False
        before, after = first[:, :-1].double(), second[:, :-1].double()
        return bool((before - after).abs().max() <= 1e-5 * before.abs().max())

    @cached_property
    def _arguments(self) -> dict[str, inspect.Parameter]:
        """Those of the forward pass, by name; every call of the model asks for them."""
        return dict(inspect.signature(self.module.forward).parameters)

    def _masks(self) -> list[str]:
        return [name for name in self._asked() if _MASK.fullmatch(name)]

    def _caches(self) -> list[str]:
        return [name for name in self._arguments if _CACHE.fullmatch(name)]

    def _asked(self) -> Iterator[str]:
        """Names of the arguments that are passed beside the ids: those without a default, masks, targets, logits."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        targets = next((name for name in _TARGETS if name in self._arguments), None)
        for argument in [*self._arguments.values()][1:]:
            needed = argument.default is argument.empty and argument.kind in kinds
            useful = argument.name in _OPTIONAL_MASKS or bool(_LOGITS.fullmatch(argument.name))
            useful |= self._passes_caches and bool(_CACHE.fullmatch(argument.name))
            if needed or useful or (self.passes_targets and argument.name == targets):
                yield argument.name

    def _value(self, name: str, ids: Tensor, targets: Tensor, mask: _Mask) -> Any:
        B, T = ids.shape
        if name in _TARGETS:
            return targets.clone()
        if _MASK.fullmatch(name):
            made = mask.make(B, T)
            return made if made is None else made.to(ids.device)
        if _POSITIONS.fullmatch(name):
            return torch.arange(T, device=ids.device)
        if _COUNT.fullmatch(name):
            return 0
        if self._passes_caches and _CACHE.fullmatch(name):
            return [None] * self.n_layer
        if _LOGITS.fullmatch(name):
            return True
        for method in (getattr(self.module, f"{start}_{name}", None) for start in _BEGINNINGS):
            if inspect.ismethod(method) and len(inspect.signature(method).parameters) < 2:
                with subject_code():
                    return method(B) if inspect.signature(method).parameters else method()
        return False if _CHOICE.fullmatch(name) else None
