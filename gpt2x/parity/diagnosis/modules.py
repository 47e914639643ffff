"""Why modules are wrong on the reference's input: mistakes are made in gpt2x's own until all is explained."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from gpt2x.checkpoints.names import is_conv1d
from gpt2x.model.attention import Attention
from gpt2x.model.block import MLP
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.causes import Cause, Kind
from gpt2x.parity.checks import Check, Mode
from gpt2x.parity.comparison import Comparison
from gpt2x.parity.diagnosis.budget import Budget
from gpt2x.parity.diagnosis.own import module_at
from gpt2x.parity.diagnosis.repaired import RepairedSubject
from gpt2x.parity.diagnosis.result import Divergence, shown_with
from gpt2x.parity.diagnosis.trial import distance, is_mostly_nan, matches, pairs_of, unexplained
from gpt2x.parity.diagnosis.weights import missing_biases, unmatched, unmatched_cause, wrong_tensors
from gpt2x.parity.measures import aligned, relative_difference
from gpt2x.parity.mistakes import mistakes_in
from gpt2x.parity.mistakes.gated import Linear, gated_mlps
from gpt2x.parity.mistakes.linear import WITHOUT_BIAS
from gpt2x.parity.mistakes.mistake import Around, Forward, Mistake, can_be_joined, made
from gpt2x.parity.mistakes.projections import grouped_queries, normed_queries
from gpt2x.parity.stages.layers import output_check
from gpt2x.parity.subject.names import HEAD, HEAD_BIAS, QKV, portion_of, whole_site

_TAKEN = Cause("a tensor with the values of the subject")


@dataclass
class ModuleSearch:
    """Goes through the modules in the reference's order of execution, the parts of a module before the whole.

    A module is explained if gpt2x's own module gives the same output with the mistakes that were found in its parts.
    If not, mistakes are tried in it, one at a time and then in pairs. A module that nothing explains, or whose cause
    gpt2x's own model cannot make, is replaced in the subject by gpt2x's own, and the modules around it are examined
    again.
    """

    c: Comparison
    own: GPT2
    subject: RepairedSubject
    original: dict[str, Tensor]
    """Site -> the output of the subject's module on the reference's input."""
    checks: list[Check]
    budget: Budget
    isolated: dict[str, Tensor] = field(init=False)
    """The same with the replacements of `subject`."""
    found: list[Divergence] = field(default_factory=list)
    finished: bool = True
    """False if gpt2x's own module is not the reference's, so that nothing more can be said."""
    _explained: dict[str, list[int]] = field(default_factory=dict)
    """Name of a module without its layer -> which of its mistakes explained it in the layer before."""
    _hopeless: set[str] = field(default_factory=set)
    """Names of modules, without their layers, that no pair of mistakes explains."""

    def __post_init__(self) -> None:
        self.isolated = self.original

    @property
    def wrong(self) -> list[str]:
        """The outermost modules that are wrong."""
        return [
            site
            for site, output in self.original.items()
            if output_check(self.c, site, Mode.ISOLATED, output).bad
            and not any(site.startswith(f"{whole}.") for whole in self.original)
        ]

    def run(self) -> list[Divergence]:
        """All causes in modules, in the order of their modules."""
        for site in self.c.record.outputs:
            if site in self.isolated and self.finished:
                self._examine(site)
        return self.found

    def _examine(self, site: str) -> None:
        expected = self.c.record.outputs[site]
        check = output_check(self.c, site, Mode.ISOLATED, self.isolated[site])
        target = aligned(self.isolated[site], expected)
        if target is None:
            self._add(site, check, Cause(f"it answers with the shape {list(self.isolated[site].shape)}"))
            return
        if not relative_difference(self._output(site, []), expected) <= self.c.tolerance:
            cause = Cause("gpt2x's own module differs from the reference here", known=False)
            self.found.append(Divergence(site, check, cause))
            self.finished = False
            return
        explained = distance(self._output(site, self._inside(site)), target) <= self.c.tolerance
        if not output_check(self.c, site, Mode.ISOLATED, self.original[site]).bad:
            if check.bad or not explained:
                self._withdraw(site)
            return
        if explained:
            return
        self._explain(site, check, target)

    def _explain(self, site: str, check: Check, target: Tensor) -> None:
        """Finds causes for a module: in its weights, then by trial."""
        whole = whole_site(site)[0]
        for weight_check in wrong_tensors(self.checks, f"{whole}."):
            name = weight_check.site
            if all(name != each.tensor for each in self.found):
                cause = weight_check.cause or Cause(f"not the reference's, by {weight_check.value:.3g}", known=False)
                self.found.append(Divergence(site, check, cause, self._with_tensor(name), tensor=name))
        self._without_biases(site, check)
        expected = self._output(site, self._inside(site))
        if distance(expected, target) <= self.c.tolerance:
            return
        if site == "lm_head":
            biased = self._with_bias_in_head()
            with_bias = [biased] if biased else []
            if distance(self._output(site, [*self._inside(site), *with_bias]), target) <= self.c.tolerance:
                self.found += [Divergence(site, check, each.cause, each) for each in with_bias]
                return
        if site == "lm_head" and self.c.exact.parts.untied_head and not self._inside(site):
            self._add(site, check, self._untied_head(target))
            return
        mistakes = self._by_trial(site, target, expected)
        if mistakes:
            self.found += [Divergence(site, check, mistake.cause, mistake) for mistake in mistakes]
            return
        cause = unexplained(target, expected, self.c.tolerance)
        alone = unmatched(self._unexplained(whole), f"{whole}.")
        if not cause.known and alone is not None:
            cause = unmatched_cause(alone, f"{alone.note}: {alone.site}")
        self._add(site, check, cause)

    def _unexplained(self, whole: str) -> list[Check]:
        """The checks of tensors that are in no other module with a cause, and that are no biases left out."""
        explained = {whole_site(each.site)[0] for each in self.found} - {whole}
        biases = missing_biases(self.c, self.checks, f"{whole}.")
        return [
            check
            for check in self.checks
            if check.site not in biases and check.site.rpartition(".")[0] not in explained
        ]

    def _without_biases(self, site: str, check: Check) -> None:
        """Leaves out the biases that the subject does not have, in the linear layers that no check has seen."""
        whole = whole_site(site)[0]
        for name in missing_biases(self.c, self.checks, f"{whole}."):
            part = name.removesuffix(".bias")
            linear = module_at(self.own, part)
            seen = {whole_site(each)[0] for each in self.isolated}
            known = any(linear in each.forwards for each in self._inside(site))
            if part not in seen and not known and isinstance(linear, nn.Linear):
                mistake = WITHOUT_BIAS.in_module(linear, f" (in {part.removeprefix(f'{whole}.')})")
                self.found.append(Divergence(site, check, mistake.cause, mistake))

    def _by_trial(self, site: str, target: Tensor, expected: Tensor) -> Sequence[Mistake]:
        """One mistake or two that give the module's output; none if nothing matches."""
        inside = self._inside(site)
        known = list(self._mistakes(site))
        mistakes = [each for each in known if all(can_be_joined(each, other) for other in inside)]

        def fitting(trials: Iterable[tuple[Mistake, ...]]) -> list[tuple[Mistake, ...]]:
            outputs = ((trial, self._output(site, [*inside, *trial])) for trial in trials)
            return matches(outputs, target, expected, self.c.tolerance)

        name = _without_layer(site)
        again = tuple(known[i] for i in self._explained.get(name, ()))
        found: list[tuple[Mistake, ...]] = []
        if again and all(each in mistakes for each in again):
            found = fitting([again])
        found = found or fitting((each,) for each in mistakes)
        if is_mostly_nan(target):
            found = found if len({each.cause for each, *_ in found}) == 1 else []
        else:
            found = found or fitting(self._pairs(site, name, mistakes))
        if found:
            self._explained[name] = [known.index(each) for each in found[0]]
        return found[0] if found else ()

    def _pairs(self, site: str, name: str, mistakes: list[Mistake]) -> Iterator[tuple[Mistake, ...]]:
        """Pairs of mistakes in what no check of a part has seen; none if they were in vain before."""
        if name in self._hopeless:
            return
        self._hopeless.add(name)
        module = module_at(self.own, whole_site(site)[0])
        parts = [whole_site(part) for part in self.isolated if part.startswith(f"{site}.")]
        thirds = {whole: {part.third for other, part in parts if other == whole and part} for whole, _ in parts}
        seen = {module_at(self.own, whole) for whole, part in parts if part is None or len(thirds[whole]) == len(QKV)}
        pairs = pairs_of([each for each in mistakes if seen.isdisjoint(each.forwards)])
        yield from self.budget.affordable(pairs, module, len(self.c.record.facts.ids))

    def _mistakes(self, site: str) -> Iterator[Mistake]:
        """All known mistakes in a module of gpt2x's own model."""
        whole, portion = whole_site(site)
        module = module_at(self.own, whole)
        for part in module.modules():
            if isinstance(part, MLP):
                yield from gated_mlps(part, self._linears_in_block(whole, in_attention=False))
            elif isinstance(part, Attention):
                yield from grouped_queries(part, self._linears_in_block(whole, in_attention=True))
                yield from normed_queries(part, self._scales_in_attention(whole))
        for mistake in mistakes_in(module):
            if portion is None:
                yield mistake
            elif isinstance(module, nn.Linear):
                wrong: dict[str, Any] = {site: mistake.forwards[module]}
                yield Mistake(mistake.cause, {module: partial(_by_portions, module, **wrong)}, rounds=mistake.rounds)

    def _linears_in_block(self, whole: str, in_attention: bool) -> list[Linear]:
        """The subject's matrices, with their biases, in the block of a module: those of attention, or the others."""
        shapes = self.c.exact.parts.parameters
        names = [name for name in self._in_block(whole) if len(shapes[name]) == 2]
        biases = {name: f"{name.removesuffix('weight')}bias" for name in names if (".attn." in name) == in_attention}
        return [
            (self.c.exact.tensor(name), self.c.exact.tensor(bias) if bias in shapes else None)
            for name, bias in biases.items()
        ]

    def _scales_in_attention(self, whole: str) -> list[Tensor]:
        """The vectors in the attention of a module's block that GPT-2 does not have, less biases."""
        unexpected, shapes = self.c.exact.parts.unexpected, self.c.exact.parts.parameters
        names = [name for name in self._in_block(whole) if name in unexpected and ".attn." in name]
        return [self.c.exact.tensor(name) for name in names if len(shapes[name]) == 1 and not name.endswith("bias")]

    def _in_block(self, whole: str) -> list[str]:
        block = ".".join([*whole.split(".")[:2], ""])
        return [name for name in self.c.exact.parts.parameters if name.startswith(block)]

    def _output(self, site: str, mistakes: Sequence[Mistake]) -> Tensor:
        """The output of gpt2x's own module on the reference's input."""
        whole = whole_site(site)[0]
        with made(mistakes):
            return portion_of(site, module_at(self.own, whole)(self.c.record.inputs[whole]))

    def _inside(self, site: str) -> list[Mistake]:
        """The mistakes found so far that change the output of a module."""
        module = module_at(self.own, whole_site(site)[0])
        shown = shown_with(self.found, self.subject.replaced)
        return [each.mistake for each in shown if each.mistake is not None and each.mistake.concerns(module)]

    def _add(self, site: str, check: Check, cause: Cause) -> None:
        """Adds a cause that gpt2x's own model cannot make: its own module takes the place of the subject's."""
        self.found.append(Divergence(site, check, cause))
        self.subject = self.subject.replacing(site)
        self.isolated = self.subject.isolated()

    def _withdraw(self, site: str) -> None:
        """Takes back what was found in the parts of a right module: they divide its work in other places."""
        parts = [each.site for each in self.found if each.site.startswith(f"{site}.")]
        self.found = [each for each in self.found if each.site not in parts]
        self.subject = self.subject.restoring(*parts)
        self.isolated = self.subject.isolated()

    def _with_tensor(self, name: str) -> Mistake:
        """gpt2x's own model with the subject's values of one tensor."""
        if name == HEAD:
            head = self.c.exact.tensor(HEAD)
            return Mistake(_TAKEN, {self.own.lm_head: lambda x: F.linear(x, head)})
        tensor = self.c.exact.tensors()[name]
        parameter = self.own.transformer.get_parameter(name)
        return Mistake(_TAKEN, weights={parameter: tensor.t() if is_conv1d(name) else tensor})

    def _with_bias_in_head(self) -> Mistake | None:
        """gpt2x's own head with the subject's bias; None if its head has none."""
        if HEAD_BIAS not in self.c.exact.parts.parameters:
            return None
        values = self.c.exact.tensor(HEAD_BIAS)[: self.own.lm_head.out_features]
        return Mistake(
            Cause(f"a bias that GPT-2 has not: {HEAD_BIAS}", kind=Kind.HEAD_BIAS),
            {self.own.lm_head: Around(self.own.lm_head, lambda head, x: head(x) + values)},
        )

    def _untied_head(self, target: Tensor) -> Cause:
        tied = F.linear(self.c.record.inputs["lm_head"].to(self.c.record.exact), self.c.exact.tensor(HEAD))
        if distance(tied, target) <= self.c.tolerance:
            return Cause("head not tied: lm_head.weight is not wte.weight")
        return Cause("neither wte.weight nor the head's own weight gives these logits", known=False)


def _by_portions(m: nn.Linear, x: Tensor, /, **wrong: Forward) -> Tensor:
    """c_attn, with other forward functions for some of its portions, by site."""
    y = type(m).forward(m, x)
    for site, forward in wrong.items():
        portion_of(site, y).copy_(portion_of(site, forward(x)))
    return y


def _without_layer(site: str) -> str:
    """`h.0.mlp.act` -> `mlp.act`, and `h.0` -> ``; a module outside the layers keeps its name."""
    return ".".join(site.split(".")[2:]) if site.startswith("h.") else site
