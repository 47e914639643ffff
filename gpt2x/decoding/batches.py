"""How many texts are decoded at once, and what is done when memory does not allow so many."""

import torch

from gpt2x.memory import available_memory
from gpt2x.model.gpt2 import GPT2

_MOST = 64  # rows: from here on more of them take as much longer (124M, two AVX-512 cores)


def automatic_batch_size(model: GPT2, capacity: int) -> int:
    """Rows of `capacity` tokens for which half of the free memory is enough: a power of two, at most 64."""
    weight = model.lm_head.weight
    config = model.config
    on_gpu = weight.device.type == "cuda"
    free = torch.cuda.mem_get_info(weight.device)[0] if on_gpu else available_memory()
    cache = 2 * config.n_layer * config.n_embd * capacity * weight.element_size()
    logits = 6 * 8 * config.vocab_size  # filters work in float64, and on a handful of copies
    rows = min(_MOST, free // 2 // (cache + logits))
    return 1 << (max(1, rows).bit_length() - 1)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether that is what torch says: by class on CUDA, by its text on a CPU and on MPS."""
    said = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)
