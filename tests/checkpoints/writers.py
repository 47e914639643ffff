"""Writes a Hugging Face model in the formats of other programs, as those programs do and without gpt2x's code."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MATRICES = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
State = dict[str, Tensor]


def parameters(hf: Any) -> State:
    """Name less `transformer.` -> parameter, in Hugging Face's layout; without the head."""
    return {
        name.removeprefix("transformer."): parameter.detach()
        for name, parameter in hf.named_parameters()
        if name != "lm_head.weight"
    }


def as_linear(state: State) -> State:
    return {name: tensor.t().contiguous() if name.endswith(MATRICES) else tensor for name, tensor in state.items()}


def write_llmc(file: Path, hf: Any, version: int = 3, padded: int | None = None, **header: int) -> None:
    """As write_model in llm.c's train_gpt2.py."""
    state, config = as_linear(parameters(hf)), hf.config
    rows = padded or config.vocab_size
    state["wte.weight"] = torch.nn.functional.pad(state["wte.weight"], (0, 0, 0, rows - config.vocab_size))
    fields = {"magic": 20240326, "version": version, "block_size": config.n_positions, "vocab_size": config.vocab_size}
    fields |= {"n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.n_embd, "padded": rows}
    numbers = list((fields | header).values())
    layers = [
        f"{module}.{leaf}"
        for module in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        for leaf in ("weight", "bias")
    ]
    order = ["wte.weight", "wpe.weight"]
    order += [f"h.{i}.{name}" for name in layers for i in range(config.n_layer)]
    order += ["ln_f.weight", "ln_f.bias"]
    dtype = torch.float32 if version == 3 else torch.bfloat16
    with file.open("wb") as stream:
        stream.write(struct.pack("<256i", *numbers, *[0] * (256 - len(numbers))))
        for name in order:
            stream.write(state[name].to(dtype).contiguous().view(torch.uint8).numpy().tobytes())


def write_gguf(file: Path, hf: Any, kind: str, architecture: str = "gpt2") -> None:
    """As llama.cpp's convert_hf_to_gguf.py, with the writer of the package gguf."""
    import gguf

    config, types = hf.config, gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, config.n_layer)
    for name, tensor in as_linear(parameters(hf)).items():
        own = types[kind] if tensor.ndim == 2 else types.F32
        target = names.get_name(name, (".weight", ".bias"))
        writer.add_tensor(target, gguf.quants.quantize(tensor.numpy().copy(), own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_flax(file: Path, hf: Any, dtype: str = "float32") -> None:
    """As flax.serialization.to_bytes of the parameters of transformers' FlaxGPT2LMHeadModel."""
    import msgpack

    tree: dict[str, Any] = {}
    for name, tensor in as_linear(parameters(hf)).items():
        *path, leaf = f"transformer.{name}".split(".")
        if leaf == "weight":
            leaf = "embedding" if path[-1] in ("wte", "wpe") else "scale" if "ln_" in path[-1] else "kernel"
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        raw = tensor.to(getattr(torch, dtype)).contiguous().view(torch.uint8).numpy().tobytes()
        node[leaf] = msgpack.ExtType(1, msgpack.packb((list(tensor.shape), dtype, raw), use_bin_type=True))
    file.write_bytes(msgpack.packb(tree, use_bin_type=True))


def write_keras(file: Path, hf: Any) -> None:
    """As save_weights of transformers' TFGPT2LMHeadModel: biases of matrices are [1, out]."""
    import h5py

    with h5py.File(file, "w") as h5:
        for name, tensor in parameters(hf).items():
            *path, leaf = name.split(".")
            if path[0] == "h":
                path = [f"h_._{path[1]}", *path[2:]]
            if "ln_" in path[-1]:
                leaf = {"weight": "gamma", "bias": "beta"}[leaf]
            elif leaf == "bias":
                tensor = tensor[None]
            elif path[-1] in ("wte", "wpe"):
                leaf = "embeddings"
            place = "/".join(["transformer", "tfgpt2lm_head_model", "transformer", *path, f"{leaf}:0"])
            h5.create_dataset(place, data=tensor.numpy())


def write_openai(directory: Path, hf: Any) -> None:
    """OpenAI's directory: a TensorBundle of TensorFlow, with its index as a table of LevelDB, and hparams.json."""
    data, entries = bytearray(), {}
    for name, tensor in parameters(hf).items():
        *path, leaf = name.split(".")
        path = [f"h{path[1]}", *path[2:]] if path[0] == "h" else path
        if path[-1] in ("wte", "wpe"):
            key = f"model/{path[-1]}"
        else:
            key = "/".join(["model", *path, {"weight": "g" if "ln_" in path[-1] else "w", "bias": "b"}[leaf]])
        array = tensor.numpy()[None] if name.endswith(MATRICES) else tensor.numpy()
        raw = np.ascontiguousarray(array).tobytes()
        shape = b"".join(_field(2, _field(1, size)) for size in array.shape)
        entries[key] = _field(1, 1) + _field(2, shape) + _field(4, len(data)) + _field(5, len(raw)) + b"\x35abcd"
        data += raw
    entries[""] = _field(1, 1)  # the header: one file of data
    (directory / "model.ckpt.data-00000-of-00001").write_bytes(data)
    (directory / "model.ckpt.index").write_bytes(_table({key.encode(): entries[key] for key in sorted(entries)}))
    (directory / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    c = hf.config
    sizes = {"n_vocab": c.vocab_size, "n_ctx": c.n_positions, "n_embd": c.n_embd, "n_head": c.n_head}
    (directory / "hparams.json").write_text(json.dumps(sizes | {"n_layer": c.n_layer}))


def _table(entries: dict[bytes, bytes]) -> bytes:
    """A sorted table of LevelDB of blocks with 10 entries, whose keys share prefixes except every fourth."""
    content, index = b"", {}
    keys = list(entries)
    for first in range(0, len(keys), 10):
        some = keys[first : first + 10]
        block = _block({key: entries[key] for key in some})
        index[some[-1]] = _varint(len(content)) + _varint(len(block))
        content += block + b"\x00crc!"
    handles = b""
    for block in (_block({}), _block(index)):
        handles += _varint(len(content)) + _varint(len(block))
        content += block + b"\x00crc!"
    return content + handles.ljust(40, b"\x00") + struct.pack("<Q", 0xDB4775248B80FB57)


def _block(entries: dict[bytes, bytes]) -> bytes:
    block, restarts, last = b"", [], b""
    for number, (key, value) in enumerate(entries.items()):
        if number % 4 == 0:
            restarts.append(len(block))
            last = b""
        shared = 0
        while shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        block += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return block + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
