"""gpt2x's own model with the reference's weights, on which mistakes are tried."""

from torch import nn

from gpt2x.checkpoints.load import model_of
from gpt2x.checkpoints.names import is_conv1d
from gpt2x.model.config import GPT2Config
from gpt2x.model.gpt2 import GPT2
from gpt2x.parity.comparison import Compared


def own_model(c: Compared) -> GPT2:
    """gpt2x's own model in the exact dtype on the CPU."""
    state = {
        f"transformer.{name}": (tensor.t() if is_conv1d(name) else tensor).to("cpu", c.record.exact)
        for name, tensor in c.record.parameters.items()
    }
    return model_of(state, GPT2Config(**c.record.facts.architecture))


def module_at(model: GPT2, site: str) -> nn.Module:
    return model.lm_head if site == "lm_head" else model.transformer.get_submodule(site)
