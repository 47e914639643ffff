"""llama.cpp's server in this process, driven by xllamacpp, without HTTP."""

import signal
from pathlib import Path
from typing import Any

import xllamacpp
from xllamacpp import ggml_type, llama_flash_attn_type


def start_server(file: Path, slots: int, context: int, threads: int, exact: bool) -> Any:
    """An xllamacpp.Server for a GGUF file, with as many slots of `context` tokens each, on the CPU.

    `exact` keeps its cache in float32, too. A server that is freed before its first answer may wait for its own end
    for ever.
    """
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_parallel, params.n_ctx = slots, slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0
    params.cache_ram_mib = 0  # keeps no copies of the caches of earlier prompts
    params.warmup = False
    params.verbosity = -1
    if exact:  # the default is a cache in float16, and flash attention, which is slow in float32
        params.cache_type_k = params.cache_type_v = ggml_type.GGML_TYPE_F32
        params.flash_attn_type = llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    server = xllamacpp.Server(params)
    for number, handler in handlers.items():  # the server has replaced them by its own
        signal.signal(number, handler)
    return server
