"""Asks the oracle all that the stages need to know, and makes a record of its answers."""

from collections.abc import Collection
from importlib.metadata import version

import torch
from torch import Tensor, nn

from gpt2x.checkpoints.load import Checkpoint
from gpt2x.checkpoints.names import dtype_name
from gpt2x.parity.measures import rms
from gpt2x.parity.reference.losses import context_losses, loss_of, one_thread, sample
from gpt2x.parity.reference.oracle import load_oracle, oracle_greedy, oracle_parameters, oracle_tokenize
from gpt2x.parity.reference.record import Facts, Generation, Record, architecture_of
from gpt2x.parity.reference.sound import check_repeatable
from gpt2x.parity.subject.module import Subject
from gpt2x.parity.texts import TEXTS
from gpt2x.parity.trace import isolate, trace
from gpt2x.prompts import Prompt

# A forward pass of n tokens takes about n multiplications per parameter. 1.5e11 of them take some ten seconds in
# float64 on two cores; they are enough for all 1024 positions of the 124M model.
_CONTEXT, _CONTEXT_WORK = 64, 1.5e11


def ask_oracle(
    checkpoint: Checkpoint,
    prompt: str,
    ids: list[int],
    gen_prompts: list[Prompt],
    max_new_tokens: int,
    wanted: Collection[str],
    exact: torch.dtype,
) -> Record:
    """The oracle's answers for a checkpoint, in the checkpoint's dtype and in `exact`; `ids` are those of the prompt.

    `wanted` are stages: answers that none of them needs are left out. Raises UserError if transformers cannot load
    the checkpoint, or answers differently when it is asked again.
    """
    weight = checkpoint.model.lm_head.weight
    dtype, device = weight.dtype, weight.device
    model = load_oracle(checkpoint, dtype, device)
    parameters = oracle_parameters(model)
    oracle = Subject("transformers", model, {name: tensor.shape for name, tensor in parameters.items()}, [])
    facts = _facts(checkpoint, oracle, prompt, ids, max_new_tokens, exact)
    with torch.no_grad():
        in_dtype = oracle.logits(torch.tensor([facts.ids], device=device))[0].cpu().double()
    if "generation" in wanted:
        for each in gen_prompts:
            ids = checkpoint.tokenizer.encode(each.text)
            new = oracle_greedy(model, ids, max_new_tokens, checkpoint.tokenizer.eos_id)
            facts.generations.append(Generation(each.text, ids, new, _top2_margins(oracle, ids, new, device)))
    exact_device = device if exact == dtype else torch.device("cpu")
    oracle.module.to(device=exact_device, dtype=exact)
    input_ids = torch.tensor([facts.ids], device=exact_device)
    logits: list[Tensor] = []
    seen = trace(lambda: logits.append(oracle.logits(input_ids)), _modules(oracle))
    with torch.no_grad():
        check_repeatable(logits[0], oracle.logits(input_ids), exact)
    facts.sites = list(seen.outputs)
    gradients: dict[str, Tensor] = {}
    losses = torch.empty(0)
    if "loss" in wanted:
        affordable = max(_CONTEXT, int(_CONTEXT_WORK / facts.n_parameters))
        with torch.no_grad():
            losses = context_losses(oracle, min(affordable, parameters["wpe.weight"].shape[0]), exact_device)
    if "gradients" in wanted:
        facts.loss, facts.gradient_norms, gradients = _learn(oracle, facts.ids, exact_device)
    elif "loss" in wanted:
        facts.loss = loss_of(oracle, facts.ids, exact_device).item()
    if "layers" in wanted and exact != dtype:
        oracle.module.to(device=device, dtype=dtype)
        input_ids = input_ids.to(device)
        isolated = isolate(lambda: oracle.logits(input_ids), _modules(oracle), seen.inputs)
        facts.site_errors = {site: rms(isolated[site].cpu().double() - seen.outputs[site]) for site in facts.sites}
    inputs, outputs = ({site: tensor.cpu() for site, tensor in each.items()} for each in (seen.inputs, seen.outputs))
    return Record(facts, parameters, logits[0][0].cpu(), in_dtype, inputs, outputs, gradients, losses)


def _facts(
    checkpoint: Checkpoint, oracle: Subject, prompt: str, ids: list[int], max_new_tokens: int, exact: torch.dtype
) -> Facts:
    texts = {"prompt": prompt} | TEXTS
    tokenized = oracle_tokenize(checkpoint.tokenizer_source.directory, list(texts.values()))
    return Facts(
        transformers=version("transformers"),
        architecture=architecture_of(checkpoint.model.config),
        dtype=dtype_name(checkpoint.model.lm_head.weight.dtype),
        exact=dtype_name(exact),
        prompt=prompt,
        ids=ids,
        n_parameters=oracle.n_parameters,
        max_new_tokens=max_new_tokens,
        texts=dict(zip(texts, tokenized, strict=True)),
    )


def _modules(oracle: Subject) -> dict[str, nn.Module]:
    """Its modules, without the two that only contain others and have no output to compare."""
    return {site: module for site, module in oracle.sites.items() if site not in ("transformer", "h")}


def _top2_margins(oracle: Subject, ids: list[int], new: list[int], device: torch.device) -> list[float]:
    with torch.no_grad():
        logits = oracle.logits(torch.tensor([ids + new[:-1]], device=device))[0, len(ids) - 1 :].cpu().double()
    top2 = logits.topk(2).values  # [n, 2]
    margins: list[float] = (top2[:, 0] - top2[:, 1]).tolist()
    return margins


def _learn(oracle: Subject, ids: list[int], device: torch.device) -> tuple[float, dict[str, float], dict[str, Tensor]]:
    """The loss, and by parameter the norms and the sampled entries of its gradient."""
    oracle.module.requires_grad_(True)
    with one_thread():
        loss = loss_of(oracle, ids, device)
        loss.backward()
        gradients = oracle.gradients()
        norms = {name: gradient.norm().item() for name, gradient in gradients.items()}
    oracle.module.zero_grad(set_to_none=True)
    return loss.item(), norms, {name: sample(gradient) for name, gradient in gradients.items()}
