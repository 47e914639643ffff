"""The batch size that memory allows."""

import torch

from gpt2x.memory import available_memory
from gpt2x.model.gpt2 import GPT2

# Rows: with more, the time grows as fast as their number (124M; two AVX-512 cores, and an H200).
_MOST, _MOST_ON_GPU = 64, 128


def automatic_batch_size(model: GPT2, capacity: int) -> int:
    """The number of rows of `capacity` tokens that fit in half of the free memory.

    It is a power of two, at most 64, or 128 on a GPU.
    """
    weight = model.lm_head.weight
    config = model.config
    on_gpu = weight.device.type == "cuda"
    free = torch.cuda.mem_get_info(weight.device)[0] if on_gpu else available_memory()
    cache = 2 * config.n_layer * config.n_embd * capacity * weight.element_size()
    logits = 6 * 8 * config.vocab_size  # the filters make a few copies, in float64
    rows = min(_MOST_ON_GPU if on_gpu else _MOST, free // 2 // (cache + logits))
    return 1 << (max(1, rows).bit_length() - 1)
