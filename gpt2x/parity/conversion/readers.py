"""The readers: gpt2x, and other programs that read what it has written."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from gpt2x.checkpoints.account import Account
from gpt2x.checkpoints.names import is_conv1d, to_file
from gpt2x.parity.conversion.onnx import OnnxPackage, OnnxRuntime
from gpt2x.parity.conversion.own import Gpt2x
from gpt2x.parity.conversion.probe import Probe, Reader, Reading
from gpt2x.parity.measures import RELATIVE_TOLERANCE
from gpt2x.parity.reference.oracle import load_oracle, oracle_parameters, oracle_tokenize
from gpt2x.tokenizer import load_tokenizer


class Transformers:
    """transformers' GPT2LMHeadModel and GPT2TokenizerFast, from the folder."""

    name = package = "transformers"
    independent = True
    formats = ("hf", "pt")

    def tolerance(self, dtype: str, computed: torch.dtype) -> float:
        return RELATIVE_TOLERANCE[computed]

    @torch.inference_mode()
    def read(self, folder: Path, weights: str, probe: Probe) -> Reading:
        written = replace(probe.source, path=folder, account=Account(reads_alike=True))  # it reads the files itself
        model = load_oracle(written, probe.dtype, torch.device("cpu"))
        encoded = oracle_tokenize(folder, list(probe.texts))
        return Reading(
            tensors={f"transformer.{name}": tensor for name, tensor in oracle_parameters(model).items()},
            logits=torch.cat([model(ids).logits.flatten(0, 1) for ids in probe.batches]),
            same_ids=[ids == expected for (ids, _), expected in zip(encoded, probe.texts.values(), strict=True)],
        )


class GgufPackage:
    """The package `gguf` of llama.cpp: the tensors, and the tokenizer from the tokens and merges of the file."""

    name = package = "gguf"
    independent = True
    formats = ("gguf",)

    def tolerance(self, dtype: str, computed: torch.dtype) -> float:
        return 0.0  # it computes no logits

    def read(self, folder: Path, weights: str, probe: Probe) -> Reading:
        import gguf

        file = gguf.GGUFReader(folder / weights)
        known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, probe.source.model.config.n_layer)
        names = {known.get_name(name, (".weight", ".bias")): name for name in to_file(probe.source.model)}
        tensors = {}
        for each in file.tensors:
            name = names.get(each.name, each.name)
            values = torch.from_numpy(gguf.quants.dequantize(each.data, each.tensor_type).copy())
            tensors[name] = values.t() if is_conv1d(name) else values
        tokens, merges, types = (
            file.fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "merges", "token_type")
        )
        used = {token: id for id, token in enumerate(tokens) if types[id] != gguf.TokenType.UNUSED}
        with tempfile.TemporaryDirectory() as saved:
            (Path(saved) / "vocab.json").write_text(json.dumps(used), encoding="utf-8")
            (Path(saved) / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
            tokenizer = load_tokenizer(Path(saved))
        return Reading(tensors=tensors, same_ids=probe.same_ids(tokenizer))


class LlamaCpp:
    """llama.cpp itself, by xllamacpp, in a process of its own: it ends its process where it cannot read a file."""

    name = "llama.cpp"
    package = "xllamacpp"
    independent = True
    formats = ("gguf",)

    def tolerance(self, dtype: str, computed: torch.dtype) -> float:
        # Its CPU code looks GELU up in a table of float16 numbers, also in a model of float32. With matrices in
        # other dtypes, it rounds the activations that they are multiplied with to the same dtype.
        return 5e-2 if dtype in ("int8", "bfloat16") else 1e-2

    def read(self, folder: Path, weights: str, probe: Probe) -> Reading:
        from gpt2x.parity.conversion.llamacpp import ask_in_process

        config = probe.source.model.config
        texts = {text: ids for text, ids in probe.texts.items() if len(ids) <= config.n_positions}
        rows = [row for ids in probe.batches for row in ids.tolist()]
        logprobs, same = ask_in_process(folder / weights, torch.get_num_threads(), config.vocab_size, rows, texts)
        return Reading(logits=torch.from_numpy(logprobs), are_logprobs=True, same_ids=same)


READERS: tuple[Reader, ...] = (Gpt2x(), Transformers(), GgufPackage(), LlamaCpp(), OnnxPackage(), OnnxRuntime())
"""In the order in which they are asked. The first one of each format shows the tensors."""
