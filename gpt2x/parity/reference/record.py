"""What the reference does, as data: all that the stages compare a subject with, live or from a file."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.checkpoints.names import dtype_name, to_file
from gpt2x.errors import UserError
from gpt2x.parity.measures import rms
from gpt2x.parity.reference.oracle import load_reference, reference_greedy, reference_parameters, reference_tokenize
from gpt2x.parity.subject.module import QKV, Subject
from gpt2x.parity.texts import TEXTS
from gpt2x.parity.trace import isolate, trace
from gpt2x.paths import shown, write_text, write_whole
from gpt2x.prompts import Prompt

_FORMAT = 1
_SAMPLE = 4096  # entries kept of each gradient; the norm is of all
# A forward pass of n tokens is n times as many multiplications as there are parameters: at 1.5e11 of them some ten
# seconds in float64 on two cores, and all 1024 positions of the 124M model.
_CONTEXT, _CONTEXT_WORK = 64, 1.5e11
_TENSORS = ("logits", "logits_in_dtype", "context_losses")


@dataclass
class Generation:
    """One prompt, continued greedily by the reference in the dtype asked for."""

    prompt: str
    prompt_ids: list[int]
    ids: list[int]
    top2_margins: list[float]
    """Before each of the new tokens, between the two largest logits."""


@dataclass
class Facts:
    """What of a record is text and numbers; the JSON half of its file."""

    transformers: str
    architecture: dict[str, Any]
    dtype: str
    exact: str
    """The dtype of traces, loss and gradients: float64, or `dtype` where that does not fit in memory."""
    prompt: str
    ids: list[int]
    n_parameters: int
    max_new_tokens: int
    texts: dict[str, tuple[list[int], str]]
    """Site -> ids of its text, and the text back from them."""
    generations: list[Generation] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    """Modules in the order in which they finish."""
    site_errors: dict[str, float] = field(default_factory=dict)
    """RMS error of each module in `dtype` against float64, on the same input."""
    loss: float | None = None
    gradient_norms: dict[str, float] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    """sha256 of each tensor's bytes in `dtype`."""


@dataclass
class Record:
    """The reference's answers. Inputs, outputs, logits and gradients are in `facts.exact`, on the CPU."""

    facts: Facts
    parameters: dict[str, Tensor]
    """By Hugging Face's names less `transformer.`, in its layout and in `facts.dtype`."""
    logits: Tensor
    """Of the prompt, [T, V]."""
    logits_in_dtype: Tensor
    """The same in `facts.dtype`; as float64, which holds them exactly."""
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]
    """_SAMPLE entries of each, evenly spaced."""
    context_losses: Tensor
    """Of each token of a text that fills the context, or as much of it as is done in seconds."""

    @property
    def exact(self) -> torch.dtype:
        return getattr(torch, self.facts.exact)

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.facts.dtype)

    @property
    def shapes(self) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in self.parameters.items()}

    def with_thirds(self) -> "Record":
        """Also with sites c_attn.q, .k and .v, for subjects that have projections of their own."""
        outputs: dict[str, Tensor] = {}
        for site, whole in self.outputs.items():
            if site.endswith("c_attn"):
                for part, output in zip(QKV, whole.chunk(3, dim=-1), strict=True):
                    self.inputs[f"{site}.{part}"], outputs[f"{site}.{part}"] = self.inputs[site], output
                    self.facts.site_errors[f"{site}.{part}"] = self.facts.site_errors.get(site, 0.0)
            outputs[site] = whole
        self.outputs = outputs
        return self


def batch_of(ids: list[int]) -> tuple[Tensor, Tensor]:
    """The batch of the loss: the prompt and the prompt backwards, [2, T], and the next tokens in a circle."""
    input_ids = torch.tensor([ids, ids[::-1]])
    return input_ids, input_ids.roll(-1, dims=1)


def loss_of(subject: Subject, ids: list[int], device: torch.device) -> Tensor:
    """Mean cross-entropy of the batch, nats a token."""
    input_ids, targets = (tensor.to(device) for tensor in batch_of(ids))
    return F.cross_entropy(subject.logits(input_ids).flatten(0, 1), targets.flatten())


def context_losses(subject: Subject, n: int, device: torch.device) -> Tensor:
    """Cross-entropy of each of n tokens, nats: a fixed text without sense, for all that the prompt is too short for."""
    V = subject.shapes["wte.weight"][0]
    ids = torch.randint(V, (1, n), generator=torch.Generator().manual_seed(0)).to(device)
    return F.cross_entropy(subject.logits(ids)[0], ids[0].roll(-1), reduction="none").cpu()


def sample(gradient: Tensor) -> Tensor:
    """_SAMPLE or a few more entries of a gradient, evenly spaced."""
    flat = gradient.flatten()
    return flat[:: max(1, flat.numel() // _SAMPLE)].cpu().clone()


def record_reference(
    checkpoint: Checkpoint,
    prompt: str,
    gen_prompts: list[Prompt],
    max_new_tokens: int,
    wanted: Collection[str],
    exact: torch.dtype,
) -> Record:
    """Asks transformers. `wanted` are stages: what none of them needs is left out."""
    weight = checkpoint.model.lm_head.weight
    dtype, device = weight.dtype, weight.device
    encode = checkpoint.tokenizer.encode
    model = load_reference(checkpoint, dtype, device)
    parameters = reference_parameters(model)
    reference = Subject("transformers", model, {name: tensor.shape for name, tensor in parameters.items()}, [])
    texts = {"prompt": prompt} | TEXTS
    facts = Facts(
        transformers=version("transformers"),
        architecture=_architecture(checkpoint),
        dtype=dtype_name(dtype),
        exact=dtype_name(exact),
        prompt=prompt,
        ids=encode(prompt),
        n_parameters=reference.n_parameters,
        max_new_tokens=max_new_tokens,
        texts=dict(zip(texts, reference_tokenize(checkpoint.tokenizer_dir, list(texts.values())), strict=True)),
    )
    with torch.no_grad():
        in_dtype = reference.logits(torch.tensor([facts.ids], device=device))[0].cpu().double()
    if "generation" in wanted:
        for each in gen_prompts:
            facts.generations.append(_continue(reference, each.text, encode(each.text), max_new_tokens, checkpoint))
    exact_device = device if exact == dtype else torch.device("cpu")
    model.to(device=exact_device, dtype=exact)
    input_ids = torch.tensor([facts.ids], device=exact_device)
    logits: list[Tensor] = []
    seen = trace(lambda: logits.append(reference.logits(input_ids)), _modules(reference))
    facts.sites = list(seen.outputs)
    gradients, losses = {}, torch.empty(0)
    if "loss" in wanted:
        affordable = max(_CONTEXT, int(_CONTEXT_WORK / facts.n_parameters))
        with torch.no_grad():
            losses = context_losses(reference, min(affordable, parameters["wpe.weight"].shape[0]), exact_device)
    if "loss" in wanted or "gradients" in wanted:
        gradients = _learn(reference, facts, exact_device, "gradients" in wanted)
    if "layers" in wanted and exact != dtype:
        model.to(device=device, dtype=dtype)
        input_ids = input_ids.to(device)
        isolated = isolate(lambda: reference.logits(input_ids), _modules(reference), seen.inputs)
        facts.site_errors = {site: rms(isolated[site].cpu().double() - seen.outputs[site]) for site in facts.sites}
    inputs, outputs = ({site: tensor.cpu() for site, tensor in each.items()} for each in (seen.inputs, seen.outputs))
    return Record(facts, parameters, logits[0][0].cpu(), in_dtype, inputs, outputs, gradients, losses)


def _architecture(checkpoint: Checkpoint) -> dict[str, Any]:
    return {key: value for key, value in asdict(checkpoint.model.config).items() if key != "dropout"}


def _modules(reference: Subject) -> dict[str, torch.nn.Module]:
    return {site: module for site, module in reference.sites.items() if site not in ("transformer", "h")}


def _continue(reference: Subject, prompt: str, ids: list[int], n: int, checkpoint: Checkpoint) -> Generation:
    new = reference_greedy(reference.module, ids, n, checkpoint.tokenizer.eos_id)
    device = checkpoint.model.lm_head.weight.device
    with torch.no_grad():
        logits = reference.logits(torch.tensor([ids + new[:-1]], device=device))[0, len(ids) - 1 :].cpu().double()
    top2 = logits.topk(2).values  # [n, 2]
    return Generation(prompt, ids, new, (top2[:, 0] - top2[:, 1]).tolist())


def _learn(reference: Subject, facts: Facts, device: torch.device, gradients: bool) -> dict[str, Tensor]:
    reference.module.requires_grad_(gradients)
    loss = loss_of(reference, facts.ids, device)
    facts.loss = loss.item()
    if not gradients:
        return {}
    loss.backward()
    found = reference.gradients()
    facts.gradient_norms = {name: gradient.norm().item() for name, gradient in found.items()}
    reference.module.zero_grad(set_to_none=True)
    return {name: sample(gradient) for name, gradient in found.items()}


def check_savable(path: Path) -> None:
    """Before the work: UserError if a record cannot be called so, or there is no folder for it and none can be made."""
    _json_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"task.save_reference={path}: {shown(path.parent)}: {error.strerror}") from None


def save_record(record: Record, path: Path) -> None:
    """Writes FILE.safetensors and FILE.json beside it; UserError if they cannot be written."""
    from safetensors.torch import save_file

    facts = _json_file(path)
    tensors = {name: getattr(record, name) for name in _TENSORS}
    for group in ("inputs", "outputs", "gradients"):
        tensors |= {f"{group}/{name}": tensor.contiguous() for name, tensor in getattr(record, group).items()}
    record.facts.digests = _digests(record.parameters)
    write_whole(path, lambda temporary: save_file({name: t.clone() for name, t in tensors.items()}, temporary))
    content = {"format": _FORMAT} | asdict(record.facts)
    write_text(facts, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def load_record(path: Path, checkpoint: Checkpoint) -> Record:
    """A saved reference, for the weights it was made with: UserError if it cannot be read, or these are others."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    json_file = _json_file(path)
    for file in (path, json_file):
        if not file.is_file():
            raise UserError(f"task.reference={path}: no file {shown(file)}; make it with task.save_reference={path}")
    try:
        content = json.loads(json_file.read_text(encoding="utf-8"))
        tensors = load_file(path)
        if content.pop("format", None) != _FORMAT:
            raise UserError(f"{shown(json_file)}: written by another version; make it anew with task.save_reference")
        content["generations"] = [Generation(**each) for each in content["generations"]]
        facts = Facts(**content)
        groups: dict[str, dict[str, Tensor]] = {"inputs": {}, "outputs": {}, "gradients": {}}
        for name, tensor in tensors.items():  # sorted by safetensors
            group, slash, site = name.partition("/")
            if slash:
                groups[group][site] = tensor
        orders = {"inputs": facts.sites, "outputs": facts.sites, "gradients": facts.gradient_norms}
        groups = {group: {name: groups[group][name] for name in order} for group, order in orders.items()}
        named = {name: tensors[name] for name in _TENSORS}
        if facts.texts.keys() != {"prompt", *TEXTS}:
            raise ValueError("texts are missing")
    except (ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        raise UserError(f"task.reference={path}: damaged, or no saved reference: {error!r}") from None
    dtype = dtype_name(checkpoint.model.lm_head.weight.dtype)
    if facts.dtype != dtype:
        raise UserError(f"task.reference={path}: made in {facts.dtype}; add dtype={facts.dtype}")
    for key, value in _architecture(checkpoint).items():
        if facts.architecture.get(key) != value:
            raise UserError(f"task.reference={path}: made with {key}={facts.architecture.get(key)}, not {value}")
    parameters = {name.removeprefix("transformer."): tensor for name, tensor in to_file(checkpoint.model).items()}
    digests = _digests(parameters)
    if digests != facts.digests:
        names = [name for name in facts.digests if digests.get(name) != facts.digests[name]]
        what = f"{names[0]} is not" if names else "the tensors are not"
        raise UserError(
            f"task.reference={path}: made with other weights than {checkpoint.weights}: {what} the same; "
            "name the weights it was made with by weights.path=FILE"
        )
    return Record(facts, parameters, **named, **groups)


def _json_file(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: a saved reference is called FILE.safetensors, with FILE.json beside it")
    return path.with_suffix(".json")


def _digests(parameters: dict[str, Tensor]) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, tensor in parameters.items()
    }
