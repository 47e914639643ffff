"""gpt2x's own model with the reference's weights, on which mistakes are tried."""

from collections.abc import Collection

from torch import nn

from gpt2x.checkpoints.load import model_of
from gpt2x.checkpoints.names import is_conv1d
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.comparison import Compared


def own_model(c: Compared, names: Collection[str] | None = None) -> GPT2:
    """gpt2x's own model in the exact dtype on the CPU.

    With `names`, only these tensors hold the reference's values; the others take no memory.
    """
    state = {
        f"transformer.{name}": (tensor.t() if is_conv1d(name) else tensor).to("cpu", c.record.exact)
        for name, tensor in c.record.parameters.items()
        if names is None or name in names
    }
    return model_of(state, GPT2Config(**c.record.facts.architecture))


def own_module(c: Compared, site: str) -> nn.Module:
    """One module of gpt2x's own model; the rest of that model takes no memory."""
    prefix = "wte." if site == "lm_head" else f"{site}."
    return module_at(own_model(c, [name for name in c.record.parameters if name.startswith(prefix)]), site)


def module_at(model: GPT2, site: str) -> nn.Module:
    return model.lm_head if site == "lm_head" else model.transformer.get_submodule(site)
